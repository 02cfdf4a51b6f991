"use strict";
// Draws verbs and their objects as two rings, where Bokeh is on the page.
(() => {
  const target = document.getElementById("verbs-chart");
  if (!target || typeof Bokeh === "undefined") return;
  const shares = JSON.parse(document.getElementById("verbs-data").textContent);
  const { Plotting, ColumnDataSource, HoverTool } = Bokeh;
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const INNER = 0.24, MIDDLE = 0.6, OUTER = 0.98;
  const LEAST_ANGLE = 0.045; // of an arc that has room for its name

  const draw = () => {
    target.replaceChildren();
    const figure = Plotting.figure({
      tools: "", toolbar_location: null, sizing_mode: "stretch_both", x_range: [-1.02, 1.02], y_range: [-1.02, 1.02],
      match_aspect: true,
    });
    figure.background_fill_color = figure.border_fill_color = color("--card");
    figure.outline_line_color = null;
    for (const axis of [...figure.below, ...figure.left]) axis.visible = false;
    for (const grid of figure.center) if ("grid_line_color" in grid) grid.grid_line_color = null;

    const total = shares.reduce((sum, share) => sum + share.rows, 0);
    const rings = { verbs: [], objects: [] };
    let start = Math.PI / 2;
    shares.forEach((share, index) => {
      const end = start - (2 * Math.PI * share.rows) / total;
      const fill = color(`--topic-${index % 10}`);
      rings.verbs.push({ name: share.verb, rows: share.rows, from: end, to: start, fill, alpha: 0.85 });
      let place = start;
      share.objects.forEach(([name, rows], number) => {
        const next = place - ((start - end) * rows) / share.rows;
        rings.objects.push({ name: `${share.verb} ${name}`, label: name, rows, from: next, to: place, fill, alpha: 0.6 - 0.1 * number });
        place = next;
      });
      start = end;
    });

    const wedges = (arcs, low, high) => {
      const column = (name) => arcs.map((arc) => arc[name]);
      const source = new ColumnDataSource({ data: {
        from: column("from"), to: column("to"), fill: column("fill"), alpha: column("alpha"), name: column("name"),
        rows: column("rows"),
      } });
      return figure.annular_wedge({
        x: 0, y: 0, inner_radius: low, outer_radius: high, start_angle: { field: "from" }, end_angle: { field: "to" },
        fill_color: { field: "fill" }, fill_alpha: { field: "alpha" }, line_color: color("--card"), line_width: 1, source,
      });
    };
    const names = (arcs, low, size) => {
      const shown = arcs.filter((arc) => arc.to - arc.from >= LEAST_ANGLE).map((arc) => {
        const middle = (arc.from + arc.to) / 2;
        const isLeft = Math.cos(middle) < 0;
        return {
          text: arc.label ?? arc.name, x: low * Math.cos(middle), y: low * Math.sin(middle),
          angle: isLeft ? middle + Math.PI : middle, align: isLeft ? "right" : "left",
        };
      });
      const column = (name) => shown.map((one) => one[name]);
      const source = new ColumnDataSource({ data: {
        text: column("text"), x: column("x"), y: column("y"), angle: column("angle"), align: column("align"),
      } });
      figure.text({
        x: { field: "x" }, y: { field: "y" }, text: { field: "text" }, angle: { field: "angle" },
        text_align: { field: "align" }, text_baseline: "middle", text_font_size: size, text_color: color("--ink"), source,
      });
    };
    const drawn = [wedges(rings.verbs, INNER, MIDDLE), wedges(rings.objects, MIDDLE, OUTER)];
    names(rings.verbs, INNER + 0.03, "12px");
    names(rings.objects, MIDDLE + 0.03, "11px");
    figure.add_tools(new HoverTool({ renderers: drawn, tooltips: "@name: @rows" }));
    Plotting.show(figure, target);
  };
  draw();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
