/**
 * Turns lines of an hour's values into a chart, and into a table for who cannot see it.
 *
 * Lines differ by dashes as well as by colour. The pointer, or the arrow keys once the chart has
 * focus, reads values off at one time.
 */

import { h, onWidth, setAttribute, setChildren, setText, svg } from "../dom.js";
import { clock, duration } from "../format.js";
import { table } from "../parts/common.js";
import { ages, greatest, last, linePath, ticks } from "./scale.js";

/**
 * @typedef {{label: string, values: (number|null)[]}} Line
 * @typedef {{from: number, stepSeconds: number, lines: Line[]}} Data
 */

const HEIGHT = 150;
const EDGE = { left: 62, right: 8, top: 10, bottom: 22 };
/** The table shows one row per this many values, so that it can be read. */
const TABLE_STEP = 30;
/** More lines than this nobody tells apart. */
export const LINES_MAX = 5;

/**
 * @param {{title: string, format: (value: number) => string, base?: number, signal: AbortSignal}} options
 */
export function lineChart({ title, format, base = 10, signal }) {
  const drawing = svg("svg", { class: "chart", role: "img", tabindex: "0" });
  const legend = h("ul", { class: "chart-legend" });
  const box = h("div", { class: "chart-box" }, drawing);
  const alternative = h("div");
  const details = h("details", { class: "alternative" }, h("summary", {}, "As a table"), alternative);
  const element = h("figure", { class: "chart-figure" }, h("figcaption", {}, title), box, legend, details);
  /** @type {Data} */
  let data = { from: 0, stepSeconds: 10, lines: [] };
  let width = 0;
  /** Which value is read off; null for the last. */
  let cursor = null;

  const draw = () => {
    if (width === 0) return;
    drawChart(drawing, data, width, format, base, cursor);
    setAttribute(drawing, "aria-label", summary(title, data, format));
    drawLegend(legend, data, format, cursor);
    if (details.open) setChildren(alternative, dataTable(title, data, format));
  };
  const move = (to) => {
    const count = data.lines[0]?.values.length ?? 0;
    const next = to === null || count === 0 ? null : Math.min(count - 1, Math.max(0, to));
    if (next === cursor) return;
    cursor = next;
    draw();
  };
  listen(drawing, () => ({ data, width, cursor }), move);
  details.addEventListener("toggle", draw);
  onWidth(box, signal, (now) => {
    width = now;
    draw();
  });
  return {
    element,
    show(news) {
      data = { ...news, lines: news.lines.slice(0, LINES_MAX) };
      draw();
    },
  };
}

function listen(drawing, state, move) {
  drawing.addEventListener("pointermove", (event) => {
    const { data, width } = state();
    const count = data.lines[0]?.values.length ?? 0;
    const share = (event.offsetX - EDGE.left) / (width - EDGE.left - EDGE.right);
    move(Math.round(share * (count - 1)));
  });
  drawing.addEventListener("pointerleave", () => move(null));
  drawing.addEventListener("blur", () => move(null));
  drawing.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") return move(null);
    if (step === undefined) return;
    event.preventDefault();
    const { data, cursor } = state();
    move((cursor ?? (data.lines[0]?.values.length ?? 1) - 1) + step * (event.shiftKey ? 6 : 1));
  });
}

function drawChart(drawing, { from, stepSeconds, lines }, width, format, base, cursor) {
  setAttribute(drawing, "viewBox", `0 0 ${width} ${HEIGHT}`);
  setAttribute(drawing, "width", width);
  setAttribute(drawing, "height", HEIGHT);
  const count = lines[0]?.values.length ?? 0;
  const marks = ticks(greatest(lines.map(({ values }) => values)), 4, base);
  const top = marks[marks.length - 1];
  const wide = width - EDGE.left - EDGE.right;
  const x = (at) => EDGE.left + (count < 2 ? wide : (at / (count - 1)) * wide);
  const y = (value) => HEIGHT - EDGE.bottom - (value / top) * (HEIGHT - EDGE.top - EDGE.bottom);
  const grid = marks.map((mark) => [
    svg("path", { d: `M${EDGE.left},${y(mark)}H${width - EDGE.right}`, class: mark === 0 ? "chart-base" : "chart-grid" }),
    svg("text", { x: EDGE.left - 8, y: y(mark) + 4, class: "chart-text", "text-anchor": "end" }, format(mark)),
  ]);
  const paths = lines.map(({ values }, at) => [
    at === 0 && svg("path", { d: area(values, x, y), class: `area line-${at}` }),
    svg("path", { d: linePath(values, x, y), class: `line line-${at}` }),
  ]);
  const pointer = cursor !== null && [
    svg("path", { d: `M${x(cursor)},${EDGE.top}V${HEIGHT - EDGE.bottom}`, class: "chart-cursor" }),
    lines.map(({ values }, at) => values[cursor] !== null && values[cursor] !== undefined
      && svg("circle", { cx: x(cursor), cy: y(values[cursor]), r: 3.5, class: `dot line-${at}` })),
    svg("text", { x: Math.min(width - 30, Math.max(EDGE.left + 24, x(cursor))), y: HEIGHT - 6, class: "chart-text is-strong", "text-anchor": "middle" }, clock(from + cursor * stepSeconds)),
  ];
  setChildren(drawing, grid.flat(), paths.flat(), cursor === null ? times(count, stepSeconds, x) : null, ...(pointer ? pointer.flat() : []));
}

/** The ground under the first line, each stretch without holes on its own. */
function area(values, x, y) {
  let path = "";
  let start = null;
  values.forEach((value, at) => {
    if (value === null) return (start = null);
    if (start === null) path += `M${x((start = at))},${y(0)}`;
    path += `L${Math.round(x(at) * 10) / 10},${Math.round(y(value) * 10) / 10}`;
    if ((values[at + 1] ?? null) === null) path += `V${y(0)}Z`;
  });
  return path;
}

function times(count, stepSeconds, x) {
  if (count < 2) return null;
  return ages(count * stepSeconds).map((age) => {
    const at = Math.max(0, count - 1 - age / stepSeconds);
    const anchor = age === 0 ? "end" : at < count / 12 ? "start" : "middle";
    return svg("text", { x: x(at), y: HEIGHT - 6, class: "chart-text", "text-anchor": anchor }, age === 0 ? "now" : `−${duration(age)}`);
  });
}

function drawLegend(legend, { lines }, format, cursor) {
  setChildren(legend, lines.map(({ label, values }, at) => {
    const value = cursor === null ? last(values) : (values[cursor] ?? null);
    const sample = svg("svg", { width: 22, height: 10, "aria-hidden": "true" }, svg("path", { d: "M1,5H21", class: `line line-${at}` }));
    const number = h("b");
    setText(number, value === null ? "–" : format(value));
    return h("li", {}, sample, h("span", {}, label), number);
  }));
}

function summary(title, { lines }, format) {
  const parts = lines.map(({ label, values }) => `${label} now ${format(last(values))}, most ${format(greatest([values]))}`);
  return `${title}, last hour: ${parts.length === 0 ? "nothing yet" : parts.join("; ")}`;
}

function dataTable(title, { from, stepSeconds, lines }, format) {
  const count = lines[0]?.values.length ?? 0;
  const rows = [];
  for (let at = count - 1; at >= 0; at -= TABLE_STEP) {
    rows.push([clock(from + at * stepSeconds), ...lines.map(({ values }) => format(values[at]))]);
  }
  const columns = [{ title: "time" }, ...lines.map(({ label }) => ({ title: label, isNumber: true }))];
  return table(title, columns, rows);
}
