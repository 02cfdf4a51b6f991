from __future__ import annotations

from tutelage.types import Message

KEPT = (
    Message("user", "How long does dough rise?"),
    Message("assistant", "About an hour.", reasoning="Warm rooms are faster."),
    Message("user", "And in the fridge?"),
    Message("assistant", "A night."),
)


def test_of_a_chatgpt_export_the_kept_path_is_read(shape_rows):
    [conversation] = shape_rows("chatgpt_export").conversations
    assert conversation.messages == KEPT
    assert conversation.metadata == {"id": "c-1", "model": "m-2", "timestamp": 1700000000.5}


def test_of_all_paths_each_reply_is_trained_once_and_a_cut_one_never(shape_rows):
    first, second, third = shape_rows("chatgpt_export", tree_paths="all").conversations
    assert first.messages == (KEPT[0], Message("assistant", "Ten minutes."))
    assert second.messages == KEPT
    assert third.messages == (
        KEPT[0],
        Message("assistant", "About an hour.", reasoning="Warm rooms are faster.", weight=0.0),
        Message("user", "And with rye?"),
        Message("assistant", "Two ho", weight=0.0),
    )


def test_a_tree_that_cannot_be_walked_is_dropped(shape_rows):
    node = {"message": {"author": {"role": "user"}, "content": {"content_type": "text", "parts": ["a"]}}}
    looped = {"mapping": {"a": node | {"parent": "b"}, "b": node | {"parent": "a"}}, "current_node": "a"}
    missing = {"mapping": {"a": node | {"parent": "gone"}}, "current_node": "a"}
    forked = {"mapping": {"a": node | {"parent": None}, "b": node | {"parent": None}}}
    result = shape_rows("chatgpt_export", looped, missing, forked)
    assert dict(result.ledger.dropped) == {"broken_tree": 3}
