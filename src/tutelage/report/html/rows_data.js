"use strict";
// Rows as rows_page.py packs them into the block "data"; a row is unpacked when it is asked for.
const packedRows = (() => {
  const { files, reasons, roles, ids, texts, marked, rows } = JSON.parse(document.getElementById("data").textContent);

  // Numbers of one to four bytes: seven bits a byte, the lowest first, bit 8 on all but the last.
  const numbers = (packed, length) => {
    const bytes = atob(packed);
    const found = new Uint32Array(length);
    for (let index = 0, at = 0; index < length; index += 1) {
      let byte = 128;
      for (let shift = 0; byte > 127; shift += 7) {
        byte = bytes.charCodeAt(at++);
        found[index] |= (byte & 127) << shift;
      }
    }
    return found;
  };

  // Value and count, one after the other -> a value for each token.
  const spread = (runs, length) => {
    const values = new Float64Array(length);
    for (let run = 0, at = 0; run < runs.length; run += 2) {
      values.fill(runs[run], at, at + runs[run + 1]);
      at += runs[run + 1];
    }
    return values;
  };

  const unpackedTurns = (flat) => {
    const turns = [];
    for (let at = 0; at < flat.length; at += 4) {
      turns.push({ message: flat[at], from: flat[at + 1], to: flat[at + 2], stops: flat[at + 3] === 1 });
    }
    return turns;
  };

  const sequenceOf = ([packed, length, trained, turns, weights, codes, traced]) => ({
    length,
    trained,
    traced: traced === 1,
    turns: unpackedTurns(turns),
    get roleRuns() { return codes; },
    unpack: () => {
      const tokens = numbers(packed, length);
      return { tokens, weights: spread(weights, length), roles: spread(codes, length), text: textOf(tokens) };
    },
  });

  const textOf = (tokens) => Array.from(tokens, (token) => texts[token]).join("");

  // The fourth place holds the sequences of a kept row, or the number of the reason why there are none.
  const row = (index) => {
    const [file, label, changes, last, detail, raw] = rows[index];
    const dropped = typeof last === "number";
    return {
      file,
      label,
      address: files[file] + label,
      changes: changes.map(([reason, said]) => ({ reason, said })),
      drop: dropped ? { reason: last, detail, raw } : null,
      sequences: dropped ? [] : last.map(sequenceOf),
    };
  };

  // All that a search looks through.
  const searchText = (index) => {
    const found = row(index);
    const said = found.changes.map((one) => `${reasons[one.reason]}: ${one.said}`);
    if (found.drop) said.push(`${reasons[found.drop.reason]}: ${found.drop.detail}`, found.drop.raw);
    else for (const sequence of rows[index][3]) said.push(textOf(numbers(sequence[0], sequence[1])));
    return [found.address, ...said].join("\n").toLowerCase();
  };

  return { files, reasons, roles, ids, texts, marked, length: rows.length, row, searchText };
})();
