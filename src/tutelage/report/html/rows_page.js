"use strict";
// Shows one page of rows, and one row with its tokens.
(() => {
  const PAGE_ROWS = 50;
  const MOST_TOKENS = 4000; // drawn at once; a button draws the next ones
  const SLICE_MS = 12; // of search before the page may answer to keys again

  const { files, reasons, roles, ids, texts, marked } = packedRows;
  const template = roles.indexOf("template");
  const element = (id) => document.getElementById(id);
  const count = (number) => number.toLocaleString("en");
  const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
  const several = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
  const tone = (role) => `role-${role.replaceAll(" ", "-")}`;
  const total = (row, key) => row.sequences.reduce((sum, one) => sum + one[key], 0);

  const make = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const drawing = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  // Which rows

  const all = Array.from({ length: packedRows.length }, (_, index) => index);
  let view = all; // numbers of the rows that are listed
  let at = 0; // place of the chosen one among them
  let wanted = "";
  let searching = 0;

  const KINDS = {
    all: () => true,
    kept: (row) => !row.drop,
    dropped: (row) => row.drop !== null,
    split: (row) => row.sequences.length > 1,
    drop: (row, reason) => row.drop !== null && row.drop.reason === reason,
    change: (row, reason) => row.changes.some((one) => one.reason === reason),
  };

  const option = (value, text) => Object.assign(make("option", "", text), { value });

  const fillFilters = () => {
    const found = new Map();
    const add = (key) => found.set(key, (found.get(key) ?? 0) + 1);
    for (const index of all) {
      const row = packedRows.row(index);
      add(`file:${row.file}`);
      add("all");
      for (const kind of ["kept", "dropped", "split"]) if (KINDS[kind](row)) add(kind);
      if (row.drop) add(`drop:${row.drop.reason}`);
      for (const reason of new Set(row.changes.map((one) => one.reason))) add(`change:${reason}`);
    }
    element("file").append(option("", `all files (${count(all.length)})`));
    files.forEach((file, index) => element("file").append(option(index, `${file} (${count(found.get(`file:${index}`))})`)));
    const choices = [["all", "all rows"], ["kept", "kept"], ["dropped", "dropped, any reason"], ["split", "split into several sequences"]];
    reasons.forEach((reason, index) => choices.push([`drop:${index}`, `dropped: ${reason}`]));
    reasons.forEach((reason, index) => choices.push([`change:${index}`, `changed: ${reason}`]));
    for (const [value, text] of choices) {
      if (found.has(value) || value === "all") element("show").append(option(value, `${text} (${count(found.get(value) ?? 0)})`));
    }
  };

  const choose = () => {
    const kept = view[at];
    const run = (searching += 1);
    const file = element("file").value;
    const [kind, reason] = element("show").value.split(":");
    wanted = element("search").value.toLowerCase();
    view = [];
    at = 0;
    let next = 0;
    const fits = (index) => {
      const row = packedRows.row(index);
      if (file !== "" && row.file !== Number(file)) return false;
      return KINDS[kind](row, Number(reason)) && (!wanted || packedRows.searchText(index).includes(wanted));
    };
    const slice = () => {
      if (run !== searching) return; // another search has begun
      const end = performance.now() + SLICE_MS;
      const none = view.length === 0;
      while (next < all.length && performance.now() < end) {
        if (fits(next)) {
          if (next === kept) at = view.length;
          view.push(next);
        }
        next += 1;
      }
      const done = next === all.length;
      say(done ? "" : `, searched ${percent(next / all.length)}`);
      if (done || (none && view.length)) draw();
      if (!done) setTimeout(slice, 0);
    };
    slice();
  };

  const say = (more) => {
    const few = view.length === all.length ? `all ${several(all.length, "row")}` : `${count(view.length)} of ${several(all.length, "row")}`;
    element("found").textContent = few + more;
  };

  // The list

  const meter = (share) => {
    const made = make("span", "meter");
    const box = drawing("svg", { viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" });
    box.append(drawing("rect", { x: 0, y: 0, width: 100 * share, height: 1 }));
    made.append(box);
    return made;
  };

  const item = (index, place) => {
    const row = packedRows.row(index);
    const made = make("div", "option");
    made.id = `option-${place}`;
    made.dataset.place = place;
    made.setAttribute("role", "option");
    made.setAttribute("aria-selected", String(place === at));
    const file = files.length > 1 ? files[row.file].split(/[\\/]/).pop() : "";
    const name = make("code", "", file + (file ? row.label : row.label.replace(/^:(row )?/, "row ")));
    name.title = row.address;
    made.append(name);
    if (row.sequences.length > 1) made.append(make("span", "tag", `split ×${row.sequences.length}`));
    if (row.changes.some((one) => reasons[one.reason] !== "split")) made.append(make("span", "tag", "changed"));
    const line = make("span", "line");
    if (row.drop) {
      line.append(make("span", "worse", `✗ dropped: ${reasons[row.drop.reason]}`));
    } else {
      const share = total(row, "trained") / total(row, "length");
      line.append(make("span", "", `${several(total(row, "length"), "token")}, ${percent(share)} trained`), meter(share));
    }
    made.append(line);
    return made;
  };

  const draw = () => {
    const page = Math.floor(at / PAGE_ROWS);
    const pages = Math.max(1, Math.ceil(view.length / PAGE_ROWS));
    const start = page * PAGE_ROWS;
    const list = element("list");
    list.replaceChildren(...view.slice(start, start + PAGE_ROWS).map((index, offset) => item(index, start + offset)));
    if (!view.length) list.append(make("p", "missing", "No row is like this."));
    element("page-number").textContent = `page ${count(page + 1)} of ${count(pages)}`;
    element("page-back").disabled = page === 0;
    element("page-on").disabled = page === pages - 1;
    list.dataset.page = page;
    drawRow();
  };

  const go = (place) => {
    if (!view.length) return;
    at = Math.min(Math.max(place, 0), view.length - 1);
    if (Number(element("list").dataset.page) !== Math.floor(at / PAGE_ROWS)) draw();
    else {
      for (const one of element("list").children) one.setAttribute("aria-selected", String(Number(one.dataset.place) === at));
      drawRow();
    }
  };

  // The row

  let cursor = -1;

  const drawRow = () => {
    const list = element("list");
    const chosen = element(`option-${at}`);
    hideTip();
    cursor = -1;
    element("row-back").disabled = at <= 0;
    element("row-on").disabled = at >= view.length - 1;
    if (!chosen) {
      list.removeAttribute("aria-activedescendant");
      element("address").textContent = "";
      element("row").replaceChildren();
      return;
    }
    list.setAttribute("aria-activedescendant", chosen.id);
    if (chosen.offsetTop < list.scrollTop + list.offsetTop) list.scrollTop = chosen.offsetTop - list.offsetTop;
    const under = chosen.offsetTop + chosen.offsetHeight - list.offsetTop - list.clientHeight;
    if (under > list.scrollTop) list.scrollTop = under;
    const row = packedRows.row(view[at]);
    element("address").textContent = row.address;
    const changes = row.changes.map((one) => make("p", "changed", `changed: ${reasons[one.reason]}: ${one.said}`));
    element("row").replaceChildren(...changes, ...(row.drop ? dropOf(row.drop) : row.sequences.map(sequenceOf)));
    element("reading").scrollTop = 0;
  };

  const dropOf = ({ reason, detail, raw }) => {
    const why = make("div", "why");
    why.append(make("h3", "", `✗ dropped: ${reasons[reason]}`), make("p", "", detail));
    return raw ? [why, make("h3", "", "The line, as it lies in the file"), make("pre", "", raw)] : [why];
  };

  const sequenceOf = (sequence, part, sequences) => {
    const made = make("div", "part");
    const name = sequences.length > 1 ? `sequence ${part + 1} of ${sequences.length}: ` : "";
    const share = percent(sequence.trained / sequence.length);
    made.append(make("h3", "", `${name}${several(sequence.length, "token")}, ${count(sequence.trained)} trained (${share}), ${several(sequence.turns.length, "turn")}`));
    made.append(...sharesOf(sequence));
    const tokens = make("div", "tokens");
    tokens.dataset.part = part;
    made.append(tokens);
    fill(tokens, sequence, 0);
    return made;
  };

  const sharesOf = ({ roleRuns, length, traced }) => {
    const sums = new Array(roles.length).fill(0);
    for (let run = 0; run < roleRuns.length; run += 2) sums[roleRuns[run]] += roleRuns[run + 1];
    const bar = drawing("svg", { class: "role-bar", viewBox: `0 0 ${length} 1`, preserveAspectRatio: "none", "aria-hidden": "true" });
    const list = make("ul", "shares");
    let left = 0;
    roles.forEach((role, code) => {
      if (!sums[code]) return;
      bar.append(drawing("rect", { class: tone(role), x: left, y: 0, width: sums[code], height: 1 }));
      left += sums[code];
      const line = make("li");
      line.append(make("span", `swatch ${tone(role)}`), `${role} `, make("b", "", percent(sums[code] / length)), " ", make("span", "soft", count(sums[code])));
      list.append(line);
    });
    const caution = "Not written by the template in one piece: where the roles cannot be traced, trained tokens count as the assistant's, all others as the template's.";
    return traced ? [bar, list] : [bar, list, make("p", "note", caution)];
  };

  // Places in a text where the search finds itself, as pairs of start and end.
  const hitsIn = (text) => {
    const found = [];
    if (!wanted) return found;
    const low = text.toLowerCase();
    if (low.length !== text.length) return found; // lengths differ in a few scripts: then nothing is marked
    for (let start = low.indexOf(wanted); start >= 0; start = low.indexOf(wanted, start + wanted.length)) {
      found.push([start, start + wanted.length]);
    }
    return found;
  };

  const turnAt = (sequence, position) => {
    const number = sequence.turns.findIndex((one) => position >= one.from && position < one.to);
    if (number < 0) return null;
    const turn = sequence.turns[number];
    return { number: number + 1, message: turn.message, stop: turn.stops && position === turn.to - 1 };
  };

  const labelOf = (role) => {
    const label = make("span", `whose ${tone(role)}`);
    label.dataset.role = role;
    return label;
  };

  const fill = (box, sequence, from) => {
    const { tokens, weights, roles: codes, text } = sequence.unpack();
    const end = Math.min(tokens.length, from + MOST_TOKENS);
    const hits = hitsIn(text);
    let run = null, kind = "", last = from ? codes[from - 1] : template, place = 0, hit = 0;
    for (let position = 0; position < from; position += 1) place += texts[tokens[position]].length;
    for (let position = from; position < end; position += 1) {
      const weight = weights[position], token = tokens[position], code = codes[position];
      const now = weight === 0 ? "context" : weight === 1 ? "trained" : "partly";
      if (now !== kind) {
        run = make(now === "context" ? "span" : "mark", now === "partly" ? "partly" : "");
        box.append(run);
        kind = now;
      }
      if (code !== last && code !== template) run.append(labelOf(roles[code]));
      last = code;
      const stop = weight !== 0 && turnAt(sequence, position)?.stop;
      const shown = marked[token] ?? texts[token];
      const ends = shown.endsWith("\n"); // the line ends behind the piece, so that its id stays on its line
      const piece = make(stop ? "b" : "i", stop ? "stop" : "", ends ? shown.slice(0, -1) : shown);
      piece.dataset.at = position;
      piece.dataset.id = ids[token];
      const next = place + texts[token].length;
      while (hit < hits.length && hits[hit][1] <= place) hit += 1;
      if (hit < hits.length && hits[hit][0] < next && next > place) piece.classList.add("hit");
      place = next;
      run.append(piece, ends ? "\n" : "");
    }
    if (end === tokens.length) return;
    const more = make("button", "", `Show ${count(Math.min(MOST_TOKENS, tokens.length - end))} of ${several(tokens.length - end, "more token")}`);
    more.type = "button";
    more.addEventListener("click", () => {
      more.remove();
      fill(box, sequence, end);
    });
    box.append(more);
  };

  // One token: its id, weight and turn

  const hideTip = () => {
    element("tip").hidden = true;
    for (const one of document.querySelectorAll(".tokens .at")) one.classList.remove("at");
  };

  const showTip = (piece, chosen) => {
    hideTip();
    const sequence = packedRows.row(view[at]).sequences[Number(piece.closest(".tokens").dataset.part)];
    const position = Number(piece.dataset.at);
    const { tokens, weights, roles: codes } = sequence.unpack();
    const turn = turnAt(sequence, position);
    const weight = weights[position];
    const what = `${turn?.stop && weight ? "stop token, " : ""}${weight ? "trained" : "context"}`;
    const reply = turn ? `reply of message ${turn.message}, turn ${turn.number} of ${sequence.turns.length}` : "not in a reply";
    const tip = element("tip");
    tip.replaceChildren(make("code", "", JSON.stringify(texts[tokens[position]])), make("br"),
      `id ${ids[tokens[position]]}, weight ${weight} (${what})`, make("br"),
      `token ${count(position + 1)} of ${count(sequence.length)}; ${reply}; words of: ${roles[codes[position]]}`);
    tip.hidden = false;
    piece.classList.toggle("at", chosen);
    const box = piece.getClientRects()[0] ?? piece.getBoundingClientRect();
    const over = box.top - tip.offsetHeight - 6;
    const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left) + window.scrollX}px`;
    tip.style.top = `${(over > 0 ? over : box.bottom + 6) + window.scrollY}px`;
  };

  const pieces = () => element("row").querySelectorAll("[data-at]");

  const step = (by) => {
    const all = pieces();
    if (!all.length) return;
    cursor = Math.min(Math.max(cursor + by, 0), all.length - 1);
    all[cursor].scrollIntoView({ block: "nearest" });
    showTip(all[cursor], true);
  };

  element("row").addEventListener("pointerover", (event) => {
    const piece = event.target.closest("[data-at]");
    if (piece && event.pointerType === "mouse") showTip(piece, false);
  });
  element("row").addEventListener("pointerleave", hideTip);
  element("row").addEventListener("click", (event) => {
    const piece = event.target.closest("[data-at]");
    if (!piece) return;
    cursor = Array.from(pieces()).indexOf(piece);
    showTip(piece, true);
  });

  // Keys and buttons

  const moves = {
    j: () => go(at + 1), ArrowDown: () => go(at + 1), k: () => go(at - 1), ArrowUp: () => go(at - 1),
    PageDown: () => go(at + PAGE_ROWS), PageUp: () => go(at - PAGE_ROWS),
    Home: () => go(0), End: () => go(view.length - 1), ArrowRight: () => step(1), ArrowLeft: () => step(-1),
    t: () => document.body.classList.toggle("split"),
    "/": () => element("search").focus(),
    "?": () => element("help").showModal(),
    Escape: hideTip,
  };
  const SCROLLING = new Set(["ArrowDown", "ArrowUp", "PageDown", "PageUp", "Home", "End"]);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || element("help").open || !(event.key in moves)) return;
    const target = event.target;
    if (target === element("search")) {
      if (event.key === "Escape") element("list").focus();
      return;
    }
    if (target.closest("select, textarea, summary")) return;
    if (SCROLLING.has(event.key) && element("reading").contains(target)) return;
    event.preventDefault();
    moves[event.key]();
    if (event.key !== "?" && event.key !== "/") document.querySelector(".panes").scrollIntoView({ block: "nearest" });
  });
  element("list").addEventListener("click", (event) => {
    const chosen = event.target.closest(".option");
    if (!chosen) return;
    go(Number(chosen.dataset.place));
    if (matchMedia("(max-width: 52rem)").matches) element("reading").scrollIntoView({ block: "start" });
  });
  let waiting = 0;
  element("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(choose, 120);
  });
  for (const name of ["file", "show"]) element(name).addEventListener("change", choose);
  for (const one of document.querySelectorAll("[data-kind]")) {
    one.addEventListener("click", () => {
      element("show").value = `${one.dataset.kind}:${reasons.indexOf(one.dataset.reason)}`;
      choose();
    });
  }
  element("page-back").addEventListener("click", () => go((Math.floor(at / PAGE_ROWS) - 1) * PAGE_ROWS));
  element("page-on").addEventListener("click", () => go((Math.floor(at / PAGE_ROWS) + 1) * PAGE_ROWS));
  element("row-back").addEventListener("click", () => go(at - 1));
  element("row-on").addEventListener("click", () => go(at + 1));
  element("keys").addEventListener("click", () => element("help").showModal());

  fillFilters();
  for (const one of document.querySelectorAll(".filters, .panes")) one.hidden = false;
  say("");
  draw();
})();
