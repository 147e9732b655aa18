/**
 * Turns components, endpoints and rates into the picture of the pipeline.
 *
 * The layout is made anew only when the nodes, the edges or the width change; each second's rates
 * and health are set in place, so that focus stays. On a narrow screen the flow goes down.
 */

import { h, keyed, onWidth, setAttribute, setText, svg } from "../dom.js";
import { rate } from "../format.js";
import { toneIcon } from "../icons.js";
import { table } from "../parts/common.js";
import { curve, labelPlaces, layers, layout } from "./layout.js";

/**
 * @typedef {{id: string, kind: string, label: string, note: string, shortNote: string, tone: string,
 *   toneText: string, href: string, isEndpoint: boolean}} Node
 * @typedef {{from: string, to: string, rate: number|null}} Flow
 */

const NODE = { width: 212, height: 66 };
/** Wide screens give nodes and gaps what they like; others take from the nodes first. */
const NODE_WIDTH_LEAST = 158;
const LAYER_GAP_LEAST = 76;
/** Narrower nodes say less. */
const WIDE_NODE = 150;
const NARROW = { width: 164, height: 66 };
const NARROW_WIDTH_LEAST = 104;
/** Narrower than this the flow goes down. */
const DOWN_BELOW_WIDTH = 640;
const MARGIN = 14;
const STROKE = { least: 1.5, most: 9 };

/**
 * @param {AbortSignal} signal
 */
export function graphView(signal) {
  const drawing = svg("svg", { class: "graph", role: "group", "aria-label": "Pipeline: what flows from where to where" });
  const box = h("div", { class: "graph-box" }, drawing);
  const alternative = h("div");
  const details = h("details", { class: "alternative" }, h("summary", {}, "As a table"), alternative);
  const element = h("div", {}, box, details);
  /** @type {{nodes: Node[], flows: Flow[]}} */
  let news = { nodes: [], flows: [] };
  let width = 0;
  let shape = "";
  let parts = { nodes: new Map(), flows: new Map() };

  function draw() {
    if (width === 0 || news.nodes.length === 0) return;
    const next = JSON.stringify([width, news.nodes.map(({ id }) => id), news.flows.map(({ from, to }) => [from, to])]);
    if (next !== shape) {
      shape = next;
      parts = build(drawing, news, width);
    }
    update(parts, news);
    if (details.open) showTable(alternative, news.flows);
  }

  onWidth(box, signal, (now) => {
    width = now;
    draw();
  });
  details.addEventListener("toggle", draw);
  return {
    element,
    show(nodes, flows) {
      news = { nodes, flows };
      draw();
    },
  };
}

function build(drawing, { nodes, flows }, width) {
  const isDown = width < DOWN_BELOW_WIDTH;
  const { size, ...room } = isDown ? downShares(nodes, flows, width) : shares(nodes, flows, width);
  const plan = layout(nodes.map(({ id }) => ({ id, ...size })), flows, room);
  const whole = { width: plan.width + 2 * MARGIN, height: plan.height + 2 * MARGIN };
  // A graph wider than its place is drawn smaller, down to what can be read; then it scrolls.
  const zoom = Math.max(0.62, Math.min(1, width / whole.width));
  setAttribute(drawing, "viewBox", `${-MARGIN} ${-MARGIN} ${whole.width} ${whole.height}`);
  setAttribute(drawing, "width", Math.round(whole.width * zoom));
  setAttribute(drawing, "height", Math.round(whole.height * zoom));
  const edges = new Map();
  const labels = labelPlaces(plan.paths.map((path) => sides(path.points, size, isDown)), isDown);
  const lines = plan.paths.map((path, at) => {
    const edge = edgePart(sides(path.points, size, isDown), labels[at], isDown);
    edges.set(`${path.from}\n${path.to}`, edge);
    return edge;
  });
  const boxes = new Map(nodes.map((node) => [node.id, nodePart(node, plan.places.get(node.id), size)]));
  drawing.replaceChildren(
    svg("g", {}, lines.map(({ line }) => line)),
    svg("g", {}, [...boxes.values()].map(({ element }) => element)),
    svg("g", { "aria-hidden": "true" }, lines.map(({ label }) => label)),
  );
  return { nodes: boxes, flows: edges };
}

/** Spreads the layers over the width there is. */
function shares(nodes, flows, width) {
  const columns = 1 + Math.max(0, ...layers(nodes.map(({ id }) => id), flows).values());
  const free = width - 2 * MARGIN;
  const wanted = (free - (columns - 1) * LAYER_GAP_LEAST) / columns;
  const size = { ...NODE, width: Math.floor(Math.min(NODE.width, Math.max(NODE_WIDTH_LEAST, wanted))) };
  const gap = columns < 2 ? 0 : (free - columns * size.width) / (columns - 1);
  return { size, layerGap: Math.min(220, Math.max(LAYER_GAP_LEAST, gap)), nodeGap: 24 };
}

/** The same for a flow that goes down: the widest layer gives the size. */
function downShares(nodes, flows, width) {
  const counts = new Map();
  for (const rank of layers(nodes.map(({ id }) => id), flows).values()) counts.set(rank, (counts.get(rank) ?? 0) + 1);
  const most = Math.max(1, ...counts.values());
  const wanted = (width - 2 * MARGIN - (most - 1) * 14) / most;
  const size = { ...NARROW, width: Math.floor(Math.min(NARROW.width, Math.max(NARROW_WIDTH_LEAST, wanted))) };
  return { size, isDown: true, layerGap: 58, nodeGap: 14 };
}

function nodePart(node, { x, y }, { width, height }) {
  const left = x - width / 2;
  const top = y - height / 2;
  const pad = width < WIDE_NODE ? 11 : 16;
  const isNarrow = width < WIDE_NODE;
  const icon = svg("g", { transform: `translate(${left + width - pad - 14},${top + 10})` });
  const note = svg("text", { x: left + pad, y: top + height - 11, class: "node-note" });
  const shape = svg("rect", { x: left, y: top, width, height, rx: node.isEndpoint ? height / 2.6 : 10, class: "node-shape" });
  const title = svg("title");
  const fits = Math.floor((width - 2 * pad) / 7.8);
  const element = svg(
    "a",
    { href: node.href, class: `node${node.isEndpoint ? " node-endpoint" : ""}` },
    title,
    shape,
    svg("text", { x: left + pad, y: top + 21, class: "node-kind" }, shortKind(node.kind, width)),
    svg("text", { x: left + pad, y: top + 39, class: "node-label" }, shortened(node.label, fits)),
    note,
    icon,
  );
  let tone = "";
  const set = (now) => {
    setText(note, isNarrow ? now.shortNote : now.note);
    setText(title, `${now.kind} ${now.label}: ${now.toneText}`);
    setAttribute(element, "aria-label", `${now.kind} ${now.label}, ${now.toneText}, ${now.note}`);
    if (tone === now.tone) return;
    tone = now.tone;
    setAttribute(shape, "class", `node-shape tone-${tone}`);
    icon.replaceChildren(toneIcon(tone));
  };
  return { element, set };
}

/** The points of an edge, from side to side; through the layers on its way it goes straight. */
function sides(middles, size, isDown) {
  const at = (point, side) =>
    isDown ? { x: point.x, y: point.y + (side * size.height) / 2 } : { x: point.x + (side * size.width) / 2, y: point.y };
  const last = middles.length - 1;
  return middles.flatMap((point, place) =>
    place === 0 ? [at(point, 1)] : place === last ? [at(point, -1)] : [at(point, -1), at(point, 1)]);
}

function edgePart(points, place, isDown) {
  const route = curve(points, isDown);
  const base = svg("path", { d: route, class: "edge" });
  const flow = svg("path", { d: route, class: "edge-flow" });
  const label = svg("text", { x: place.x, y: place.y + 4, "text-anchor": "middle", class: "edge-rate" });
  return { line: svg("g", {}, base, flow), base, flow, label };
}

function update({ nodes, flows: edges }, { nodes: items, flows }) {
  for (const item of items) nodes.get(item.id)?.set(item);
  const most = Math.max(1, ...flows.map(({ rate: value }) => value ?? 0));
  for (const { from, to, rate: value } of flows) {
    const edge = edges.get(`${from}\n${to}`);
    if (edge === undefined) continue;
    const width = strokeWidth(value ?? 0, most);
    setAttribute(edge.base, "stroke-width", width);
    setAttribute(edge.flow, "stroke-width", Math.max(1, width * 0.45));
    edge.flow.classList.toggle("is-flowing", (value ?? 0) > 0);
    setText(edge.label, value === null ? "" : rate(value));
  }
}

/** By the root, so that a tenth of the most is still seen to be more than nothing. */
export function strokeWidth(value, most) {
  const width = STROKE.least + (STROKE.most - STROKE.least) * Math.sqrt(Math.min(1, value / most));
  return Math.round(width * 10) / 10;
}

/** Where not every kind fits, the last word of each has to do: "remote_write". */
function shortKind(kind, width) {
  const last = kind.slice(kind.lastIndexOf(".") + 1);
  return width < 190 ? shortened(last, Math.floor((width - 36) / 6.4)) : kind;
}

/** Cut in the middle: the ends of ids tell more. */
export function shortened(text, characters) {
  if (text.length <= characters) return text;
  const half = Math.max(1, Math.floor((characters - 1) / 2));
  return `${text.slice(0, half)}…${text.slice(text.length - half)}`;
}

function showTable(place, flows) {
  const rows = flows.map(({ from, to, rate: value }) => [from, to, rate(value)]);
  const columns = [{ title: "from" }, { title: "to" }, { title: "records", isNumber: true }];
  keyed(place, [rows], () => "table", () => {
    const element = h("div");
    return { element, update: (now) => element.replaceChildren(table("Records per second over each edge", columns, now)) };
  });
}
