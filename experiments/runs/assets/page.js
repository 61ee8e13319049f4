"use strict";
// Tables: a click on a heading sorts by it, a second click the other way round.
for (const table of document.querySelectorAll("table.many")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    const value = row => row.cells[column].dataset.value, number = text => text === "" ? NaN : Number(text);
    const numeric = head.classList.contains("number");
    const order = (a, b) => numeric ? number(value(a)) - number(value(b)) : value(a).localeCompare(value(b), undefined, {numeric: true});
    const there = row => !numeric || !Number.isNaN(number(value(row)));
    const rows = [...body.rows];
    const sorted = rows.filter(there).sort((a, b) => up ? order(a, b) : order(b, a));
    body.append(...sorted, ...rows.filter(row => !there(row)));  // what is missing stays last
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  }));
}
// Charts: the data lie beside them; what the pointer is at is written below, and both axes can be logarithmic.
const dark = matchMedia("(prefers-color-scheme: dark)"), narrow = matchMedia("(max-width: 640px)");
for (const place of document.querySelectorAll(".chart")) {
  const told = JSON.parse(place.querySelector("script").textContent);
  const best = Math.max(...told.lines.flatMap(line => line.values.filter(v => v !== null)));
  const logs = [...place.querySelectorAll("input")], canvas = place.querySelector(".plot");
  let plot = null;
  const draw = () => {
    const css = getComputedStyle(document.documentElement), ink = css.getPropertyValue("--faint"), line = css.getPropertyValue("--line");
    const [logX, logY] = logs.map(box => box.checked);
    const axis = label => ({label, stroke: ink, grid: {stroke: line, width: 1}, ticks: {stroke: line, width: 1}});
    const values = told.lines.map(one => logY ? one.values.map(v => v === null || v >= best ? null : best - v) : one.values);
    if (plot) plot.destroy();
    place.querySelector(".up").textContent = logY ? told.below : told.y;
    plot = new uPlot({
      width: canvas.clientWidth, height: narrow.matches ? 280 : 340, legend: {live: true},
      scales: {x: {time: false, distr: logX ? 3 : 1}, y: {distr: logY ? 3 : 1}},
      axes: [axis(told.x), {...axis(undefined), size: 56}],
      series: [{label: told.x}, ...told.lines.map(one => ({
        label: one.label, stroke: dark.matches && one.colour === "#000000" ? "#e6e9ed" : one.colour, width: 2, dash: one.dash, spanGaps: true,
        value: (_, v) => v === null ? "\u2013" : v.toPrecision(6),
      }))],
    }, [told.steps, ...values], canvas);
  };
  draw();
  logs.forEach(box => box.addEventListener("change", draw));
  dark.addEventListener("change", draw);
  new ResizeObserver(() => { if (canvas.clientWidth) plot.setSize({width: canvas.clientWidth, height: plot.height}); }).observe(canvas);
}
