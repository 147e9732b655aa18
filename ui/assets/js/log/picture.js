/**
 * Turns a writer into the picture of its log: a band of segments, and below it who has had how much.
 *
 * Drawn anew with each news: nothing in it takes focus, and what it says is also in words and
 * tables beside it.
 */

import { h, onWidth, setAttribute, setChildren, svg } from "../dom.js";
import { bytes, exact } from "../format.js";
import { endpointWords } from "../words.js";
import { described, geometry } from "./geometry.js";

const BAND = { y: 30, height: 46 };
const ROW_HEIGHT = 40;
/** Text of an endpoint's row is about this wide per character. */
const CHARACTER_WIDTH = 6.6;

const KEY = [
  ["needed", "not yet delivered everywhere"],
  ["delivered", "delivered, goes with its segment"],
  ["undurable", "not yet on the device"],
  ["empty", "room in the current segment"],
  ["prepared", "prepared ahead"],
];

/**
 * @param {AbortSignal} signal
 */
export function logPicture(signal) {
  const drawing = svg("svg", { class: "log", role: "img" });
  const box = h("div", { class: "log-box" }, drawing);
  const key = h("ul", { class: "log-key" }, KEY.map(([kind, text]) =>
    h("li", {}, svg("svg", { width: 18, height: 12, "aria-hidden": "true" }, keyShape(kind)), text)));
  let writer = null;
  let width = 0;
  const draw = () => {
    if (writer !== null && width > 0) drawLog(drawing, writer, width);
  };
  onWidth(box, signal, (now) => {
    width = now;
    draw();
  });
  return {
    element: h("div", {}, box, key),
    show(now) {
      writer = now;
      draw();
    },
  };
}

function keyShape(kind) {
  return svg("rect", { x: 1, y: 1, width: 16, height: 10, rx: 2, class: kind === "prepared" ? "segment-prepared" : `fill-${kind}` });
}

function drawLog(drawing, writer, width) {
  const view = geometry(writer, width);
  const height = BAND.y + BAND.height + 12 + writer.endpoints.length * ROW_HEIGHT;
  setAttribute(drawing, "viewBox", `0 0 ${width} ${height}`);
  setAttribute(drawing, "width", width);
  setAttribute(drawing, "height", height);
  setAttribute(drawing, "aria-label", described(writer, bytes));
  setChildren(
    drawing,
    view.endpoints.map((endpoint, at) => shade(endpoint, at, writer.endpoints[at])),
    view.segments.map(drawSegment),
    view.leftOut === null ? null : drawLeftOut(view.leftOut),
    drawMarks(view, writer.positions, width),
    view.endpoints.map((endpoint, at) => drawEndpoint(endpoint, at, writer.endpoints[at], width)),
  );
}

function drawSegment(segment) {
  const gap = Math.min(1.5, segment.width * 0.15);
  const [x, width] = [segment.x + gap / 2, Math.max(0.5, segment.width - gap)];
  const outline = { x, y: BAND.y, width, height: BAND.height, rx: Math.min(4, width / 3) };
  const span = `${bytes(segment.from)} – ${bytes(segment.to)}`;
  const title = svg("title", {}, `segment ${segment.id}, ${segment.state}: ${span}`);
  if (segment.state === "prepared") return svg("rect", { ...outline, class: "segment-prepared" }, title);
  const filled = segment.fills.map(({ kind, x: from, width: wide }) => {
    const left = Math.max(from, x);
    const least = kind === "undurable" ? 1.5 : 0;
    return svg("rect", {
      x: left,
      y: BAND.y,
      width: Math.max(least, Math.min(from + wide, x + width) - left),
      height: BAND.height,
      class: `fill-${kind}`,
    });
  });
  return svg("g", {}, title, filled, svg("rect", { ...outline, class: "segment-outline" }));
}

function drawLeftOut({ count, x, width, kind }) {
  const text = `${exact(count)} more segments`;
  const isRoomy = width > text.length * CHARACTER_WIDTH;
  return svg(
    "g",
    {},
    svg("title", {}, text),
    svg("rect", { x, y: BAND.y + 5, width, height: BAND.height - 10, class: `fill-${kind} is-left-out` }),
    isRoomy && svg("text", { x: x + width / 2, y: BAND.y + BAND.height / 2 + 4, class: "log-note on-fill", "text-anchor": "middle" }, text),
  );
}

/** The watermarks above the band; a word gives way where two would touch. */
function drawMarks({ marks }, positions, width) {
  const head = { x: marks.appended, text: `appended ${bytes(positions.appended)}` };
  const tail = { x: marks.reclaimed, text: `reclaimed ${bytes(positions.reclaimed)}` };
  const long = (text) => text.length * CHARACTER_WIDTH;
  const isHeadLeft = head.x > width / 2;
  const headFrom = isHeadLeft ? head.x - long(head.text) : head.x;
  const isApart = tail.x + long(tail.text) + 12 < headFrom;
  const line = (x, name) => svg("path", { d: `M${x},${BAND.y - 8}V${BAND.y + BAND.height + 5}`, class: `mark-${name}` });
  return [
    line(marks.reclaimed, "reclaimed"),
    line(marks.appended, "appended"),
    line(marks.durable, "durable"),
    svg("path", { d: `M${marks.durable - 5},${BAND.y - 9}h10l-5,7z`, class: "mark-durable-head" }, svg("title", {}, `durable ${bytes(positions.durable)}`)),
    isApart && svg("text", { x: tail.x, y: 14, class: "log-note" }, tail.text),
    svg("text", { x: head.x, y: 14, class: "log-note", "text-anchor": isHeadLeft ? "end" : "start" }, head.text),
  ];
}

const rowY = (at) => BAND.y + BAND.height + 12 + at * ROW_HEIGHT;

/** What an endpoint still needs, as a shadow from the band down to its row. */
function shade({ lagX, lagWidth }, at, endpoint) {
  const tone = endpointWords(endpoint).tone;
  return svg("rect", { x: lagX, y: BAND.y, width: lagWidth, height: rowY(at) + 28 - BAND.y, class: `lag-shade tone-${tone}` });
}

function drawEndpoint({ x, lagX, lagWidth }, at, endpoint, width) {
  const words = endpointWords(endpoint);
  const y = rowY(at) + 24;
  const lag = endpoint.lagBytes === 0 ? "has all of it" : `${bytes(endpoint.lagBytes)} behind`;
  const long = (endpoint.name.length + lag.length + 2) * CHARACTER_WIDTH;
  const isLeft = x + long > width;
  const place = { x: isLeft ? x - 9 : x + 9, y: y - 8, "text-anchor": isLeft ? "end" : "start" };
  return svg(
    "g",
    { class: `log-endpoint tone-${words.tone}` },
    svg("title", {}, `${endpoint.name}: ${words.title}, ${words.text}`),
    svg("path", { d: `M0,${y}H${width}`, class: "log-rule" }),
    svg("rect", { x: lagX, y: y - 3, width: lagWidth, height: 6, rx: 3, class: "lag-bar" }),
    svg("path", { d: `M${x},${BAND.y + BAND.height}V${y}`, class: "acked-line" }),
    svg("path", { d: `M${x},${y - 7}l6,7l-6,7l-6,-7z`, class: "acked-mark" }),
    svg("text", place, svg("tspan", { class: "log-name" }, endpoint.name), svg("tspan", { class: "log-note", dx: 8 }, lag)),
  );
}
