"""What a run says about itself before its first step: its data, and its model."""

from __future__ import annotations

from tutelage.builders.dataset import Prepared
from tutelage.model.adapters.trainable import Trainable
from tutelage.model.architecture import Architecture
from tutelage.model.load import Loaded
from tutelage.model.precision import Precision
from tutelage.report.console.progress import Screen
from tutelage.report.numbers import byte_size


def announce_data(screen: Screen, prepared: Prepared) -> None:
    """Rows in and kept, what was dropped or changed and why, where sequences come from."""
    ledger, totals = prepared.ledger, prepared.train_totals
    screen.log(
        f"Data: {ledger.rows_in} rows in = {ledger.rows_kept} kept + {ledger.rows_dropped} dropped; "
        f"{totals.examples} training sequences, {totals.tokens:,} tokens, {totals.trained_tokens:,} of them trained "
        f"({totals.trained_tokens / totals.tokens:.0%})"
    )
    for reason, count in ledger.dropped.most_common():
        sample = ledger.drop_samples[reason][0]
        screen.log(f"  dropped {count}: {reason}, first {sample.address}: {sample.detail}")
    for reason, count in ledger.changed.most_common():
        screen.log(f"  changed {count}: {reason}, first {ledger.change_samples[reason][0].address}")
    for source in (source for source in prepared.sources if not source.replayed):  # that has a note of its own
        screen.log(f"  {float(source.weight):g} x {len(source.indices)} sequences an epoch: {source.name}")
    for note in ledger.notes:
        screen.log(f"  note: {note}")


def announce_model(
    screen: Screen, loaded: Loaded, adapted: Trainable, precision: Precision, *, state_bytes: int, layout: str
) -> None:
    """Its size, what learns, and in bytes; where, in which precision, over which processes; then notes, a line each."""
    held = f", {adapted.four_bit / loaded.parameters:.1%} of them in 4 bits" if adapted.four_bit else ""
    trained, state = byte_size(adapted.trainable_bytes), byte_size(state_bytes)
    screen.log(
        f"Model: {loaded.parameters:,} parameters ({byte_size(loaded.weight_bytes)}{held}) on {loaded.device}, "
        f"{adapted.method}, {adapted.trainable:,} trained ({trained} and {state} of optimizer state), "
        f"{precision}{layout and f', {layout}'}"
    )
    for note in (*loaded.notes, *adapted.notes):
        screen.log(f"  {note}")


def announce_architecture(screen: Screen, architecture: Architecture) -> None:
    """What was tried on the model and costs something, a line each."""
    if architecture.attention == "own":
        screen.log("  This model attends in a way of its own, which is kept: each row holds one document")
    elif not architecture.documents_isolated:
        screen.log("  This model computes a document otherwise beside others: each row holds one document")
    elif not architecture.shares_prefixes:
        screen.log(
            "  This model computes a shared beginning otherwise, so beginnings that documents share are not joined"
        )
    if architecture.head == "own":
        screen.log(
            "  Its logits are more than a product with its output head: its own code makes them, twice for each row"
        )
    elif architecture.head == "whole":
        screen.log("  It cannot be asked in parts: logits are made for every token of a row")
    if architecture.draws_noise:
        screen.log(
            "  It draws random numbers as it trains (dropout), so beginnings that documents share are not joined"
        )
