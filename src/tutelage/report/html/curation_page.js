"use strict";
// Opens rows, and draws the map and the lengths where Bokeh is on the page. All texts of rows are set as text.
(async () => {
  const find = (id) => document.getElementById(id);
  const made = (name, text = "", style = "") => {
    const element = document.createElement(name);
    element.textContent = text;
    if (style) element.className = style;
    return element;
  };

  const unpacked = async (packed) => {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };
  const data = await unpacked(find("data").textContent);
  const rows = data.rows.map(([address, state, step, detail, anchor, cut, turns]) => (
    { address, state, step, detail, anchor, cut, turns }
  ));

  // The reader: one of the rows that were chosen, and the way to the others.
  let chosen = [];
  let place = 0;
  const show = () => {
    const row = rows[chosen[place]];
    find("reader").hidden = false;
    find("reader-address").textContent = row.address;
    find("reader-place").textContent = chosen.length > 1 ? `${place + 1} of ${chosen.length}` : "";
    find("reader-back").hidden = find("reader-on").hidden = chosen.length < 2;
    const body = find("reader-row");
    const said = row.step ? `${row.state} at ${row.step}` : row.state;
    body.replaceChildren(made("p", said, row.step ? "worse" : "soft"));
    if (row.anchor) body.append(made("p", `in its place stands ${row.anchor}`));
    if (row.detail) body.append(made("p", row.detail, "soft"));
    for (const [role, text] of row.turns) body.append(made("h3", role), made("pre", text));
    if (row.cut) body.append(made("p", `and ${row.cut} characters more, in the file`, "soft"));
    find("reader").scrollTop = 0;
    history.replaceState(null, "", `#row-${chosen[place]}`);
    document.dispatchEvent(new CustomEvent("row", { detail: chosen[place] }));
  };
  const open = (numbers) => {
    if (!numbers.length) return;
    chosen = numbers;
    place = 0;
    show();
  };
  const step = (by) => {
    place = (place + by + chosen.length) % chosen.length;
    show();
  };
  const close = () => { find("reader").hidden = true; };
  find("reader-back").addEventListener("click", () => step(-1));
  find("reader-on").addEventListener("click", () => step(1));
  find("reader-close").addEventListener("click", close);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-row]");
    if (button) open([Number(button.dataset.row)]);
  });

  const named = /^#row-(\d+)$/.exec(location.hash);
  if (named && Number(named[1]) < rows.length) open([Number(named[1])]);

  if (typeof Bokeh === "undefined") return;
  const { Plotting, ColumnDataSource, HoverTool, NumeralTickFormatter } = Bokeh;
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const dressed = (figure) => {
    const paint = { card: color("--card"), line: color("--line"), grid: color("--grid"), soft: color("--soft") };
    figure.background_fill_color = figure.border_fill_color = paint.card;
    figure.outline_line_color = paint.line;
    for (const axis of [...figure.below, ...figure.left]) {
      axis.axis_line_color = axis.major_tick_line_color = paint.line;
      axis.minor_tick_line_color = null;
      axis.major_label_text_color = axis.axis_label_text_color = paint.soft;
    }
    for (const grid of figure.center) if ("grid_line_color" in grid) grid.grid_line_color = paint.grid;
    return figure;
  };

  const SIGNS = [["x", "✕"], ["triangle", "▲"], ["diamond", "◆"], ["square", "■"], ["inverted_triangle", "▼"],
    ["asterisk", "✳"], ["star", "★"], ["hex", "⬢"], ["cross", "+"], ["square_x", "⊠"]];
  const { rows: numbers, x, y, topics, names } = data.map;
  const isKept = numbers.map((number) => rows[number].step === "");
  const counts = new Map();
  numbers.forEach((number, point) => {
    if (!isKept[point]) counts.set(rows[number].state, (counts.get(rows[number].state) ?? 0) + 1);
  });
  const reasons = [...counts.keys()].sort((one, other) => counts.get(other) - counts.get(one) || (one < other ? -1 : 1));
  const hidden = new Set();

  // What is drawn together: the kept rows of a topic, and the rows that went for a reason.
  const groups = [
    ...names.map((name, topic) => ({ name, topic, points: [] })),
    { name: "no words", topic: -1, points: [] },
    ...reasons.map((name, index) => ({ name, sign: SIGNS[Math.min(index, SIGNS.length - 1)], points: [] })),
  ];
  numbers.forEach((number, point) => {
    const group = isKept[point]
      ? groups[topics[point] < 0 ? names.length : topics[point]]
      : groups[names.length + 1 + reasons.indexOf(rows[number].state)];
    group.points.push(point);
  });
  const topicColor = (topic) => (topic < 0 ? color("--soft") : color(`--topic-${topic % 10}`));
  const firstWords = (row) => row.turns.map(([, text]) => text.slice(0, 90)).join(" / ").replace(/\s+/g, " ").slice(0, 90);

  // By keys: from point to point of those that are shown, the nearest that lies in the direction of the arrow.
  let at = -1;
  let ringed = () => {};
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const shownPoints = () => groups.filter((group) => !hidden.has(group)).flatMap((group) => group.points);
  const nextPoint = ([across, up]) => {
    let best = -1;
    let shortest = Infinity;
    for (const point of shownPoints()) {
      const [right, above] = [x[point] - x[at], y[point] - y[at]];
      const along = right * across + above * up;
      const aside = Math.abs(right * up) + Math.abs(above * across);
      const way = along + 2 * aside;
      if (along > 0 && aside <= 2 * along && way < shortest) [best, shortest] = [point, way];
    }
    return best;
  };
  const goTo = (point) => {
    if (point < 0) return;
    at = point;
    ringed(point);
    const row = rows[numbers[point]];
    find("map-said").textContent = `${row.address}, ${row.state}: ${firstWords(row)}`;
  };
  find("map-chart").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isStart = event.key === "Home" || (at < 0 && event.key in ARROWS);
    if (isStart) goTo(shownPoints()[0] ?? -1);
    else if (event.key in ARROWS) goTo(nextPoint(ARROWS[event.key]));
    else if (event.key === "Enter" && at >= 0) open([numbers[at]]);
    else return;
    event.preventDefault();
  });

  const drawMap = () => {
    const target = find("map-chart");
    target.replaceChildren();
    const figure = Plotting.figure({
      tools: "pan,box_zoom,wheel_zoom,tap,reset", sizing_mode: "stretch_both", toolbar_location: "right",
    });
    figure.toolbar.logo = null;
    // A finger that goes over the map scrolls the page, until a tool is chosen.
    if (window.matchMedia("(pointer: coarse)").matches) figure.toolbar.active_drag = null;
    dressed(figure);
    for (const axis of [...figure.below, ...figure.left]) axis.visible = false;
    const ring = new ColumnDataSource({ data: { x: [], y: [] } });
    const drawn = groups.filter((group) => group.points.length).map((group) => {
      const source = new ColumnDataSource({ data: {
        x: group.points.map((point) => x[point]),
        y: group.points.map((point) => y[point]),
        address: group.points.map((point) => rows[numbers[point]].address),
        state: group.points.map((point) => rows[numbers[point]].state),
        words: group.points.map((point) => firstWords(rows[numbers[point]])),
      } });
      const ink = group.sign ? color("--ink") : topicColor(group.topic);
      const alpha = group.sign ? 0.7 : 0.55;
      const renderer = figure.scatter({ field: "x" }, { field: "y" }, {
        source, size: group.sign ? 6 : 5, marker: group.sign ? group.sign[0] : "circle",
        fill_color: ink, line_color: ink, fill_alpha: group.sign ? 0.1 : alpha, line_alpha: alpha,
        nonselection_fill_alpha: group.sign ? 0.1 : alpha, nonselection_line_alpha: alpha,
      });
      renderer.visible = !hidden.has(group);
      return { group, source, renderer };
    });
    const isWide = window.matchMedia("(min-width: 44rem)").matches; // names would lie on each other
    const labels = (isWide ? names : []).map((name, topic) => {
      const points = numbers.map((_, point) => point).filter((point) => topics[point] === topic);
      const across = points.map((point) => x[point]);
      return { name, x: (Math.min(...across) + Math.max(...across)) / 2, y: Math.max(...points.map((point) => y[point])) };
    });
    figure.text(labels.map((label) => label.x), labels.map((label) => label.y), labels.map((label) => label.name), {
      text_align: "center", text_baseline: "bottom", y_offset: -6, text_font_size: "13px", text_font_style: "bold",
      text_color: color("--ink"), background_fill_color: color("--card"), background_fill_alpha: 0.75, padding: 2,
    });
    figure.scatter({ field: "x" }, { field: "y" }, {
      source: ring, size: 16, marker: "circle", fill_color: null, line_color: color("--orange"), line_width: 3,
    });
    figure.add_tools(new HoverTool({
      renderers: drawn.map((one) => one.renderer), limit: 1,
      tooltips: [["row", "@address"], ["", "@state"], ["", "@words"]],
    }));
    const gather = () => {
      const points = [...drawn].reverse().flatMap(({ group, source, renderer }) => (
        renderer.visible ? source.selected.indices.map((index) => group.points[index]) : []
      ));
      open(points.map((point) => numbers[point]));
    };
    let waiting = false;
    for (const { source } of drawn) {
      source.selected.change.connect(() => {
        if (waiting) return;
        waiting = true;
        setTimeout(() => { waiting = false; gather(); }, 0);
      });
    }
    document.addEventListener("row", (event) => {
      const point = numbers.indexOf(event.detail);
      ring.data = point < 0 ? { x: [], y: [] } : { x: [x[point]], y: [y[point]] };
      if (point >= 0) at = point;
    });
    ringed = (point) => { ring.data = { x: [x[point]], y: [y[point]] }; };
    Plotting.show(figure, target);
    return drawn;
  };

  let drawn = [];
  const drawKeys = () => {
    const keys = find("map-keys");
    keys.replaceChildren();
    for (const one of drawn) {
      const button = made("button");
      button.type = "button";
      button.setAttribute("aria-pressed", String(!hidden.has(one.group)));
      const sign = made("span", one.group.sign ? one.group.sign[1] : "", one.group.sign ? "sign" : "dot");
      if (!one.group.sign) sign.style.background = topicColor(one.group.topic);
      button.append(sign, `${one.group.name} `, made("span", one.group.points.length.toLocaleString("en"), "soft"));
      button.addEventListener("click", () => {
        if (hidden.has(one.group)) hidden.delete(one.group); else hidden.add(one.group);
        one.renderer.visible = !hidden.has(one.group);
        button.setAttribute("aria-pressed", String(one.renderer.visible));
      });
      keys.append(button);
    }
  };

  const drawLengths = (target) => {
    const { edges, before, after } = data.lengths[target.dataset.lengths];
    target.replaceChildren();
    const figure = dressed(Plotting.figure({
      tools: "", x_axis_type: "log", sizing_mode: "stretch_both", toolbar_location: null,
    }));
    const left = edges.slice(0, -1).map((edge) => Math.max(edge, 0.5));
    const right = edges.slice(1);
    figure.quad({ left, right, bottom: 0, top: before, fill_color: color("--soft"), fill_alpha: 0.35, line_color: null });
    const steps = { x: [], y: [] };
    after.forEach((share, bin) => { steps.x.push(left[bin], right[bin]); steps.y.push(share, share); });
    figure.line(steps.x, steps.y, { line_color: color("--blue"), line_width: 2 });
    figure.left[0].formatter = new NumeralTickFormatter({ format: "0%" });
    figure.below[0].formatter = new NumeralTickFormatter({ format: "0,0" });
    figure.below[0].axis_label = target.dataset.lengths;
    figure.y_range.start = 0;
    Plotting.show(figure, target);
  };

  const draw = () => {
    drawn = drawMap();
    drawKeys();
    for (const target of document.querySelectorAll("[data-lengths]")) drawLengths(target);
  };
  draw();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
