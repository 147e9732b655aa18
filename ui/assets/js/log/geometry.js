/**
 * Turns a writer's positions into where they are on a line of some width.
 *
 * The line is the log from the oldest byte on disk to the end of the segments prepared ahead, to
 * scale. Pure: what the picture claims is tested without a picture.
 *
 * @typedef {"delivered"|"needed"|"undurable"|"empty"} Kind
 *   had by all endpoints; not yet by some; appended and not yet on the device; not yet written
 * @typedef {{x: number, width: number, kind: Kind}} Fill
 */

/** A stretch that is there is seen, however short. */
const SEEN_WIDTH_LEAST = 2;

/**
 * @param {import("../contract.js").Writer} writer
 * @param {number} width
 */
export function geometry(writer, width) {
  const { appended, durable, reclaimed } = writer.positions;
  const segments = placed(writer);
  const from = Math.min(reclaimed, appended, segments[0]?.from ?? reclaimed);
  const to = Math.max(appended, segments[segments.length - 1]?.to ?? appended, from + 1);
  const x = (position) => (Math.min(Math.max(position, from), to) - from) / (to - from) * width;
  const needed = writer.endpoints.reduce((least, { acked }) => Math.min(least, acked), durable);
  return {
    from,
    to,
    segments: segments.map((segment) => ({
      ...segment,
      x: x(segment.from),
      width: x(segment.to) - x(segment.from),
      fills: fills(segment, needed, durable, appended, x),
    })),
    leftOut: leftOut(segments, writer.segmentsLeftOut ?? 0, needed, x),
    marks: { reclaimed: x(reclaimed), durable: x(durable), appended: x(appended) },
    endpoints: writer.endpoints.map((endpoint) => lag(endpoint, appended, x)),
  };
}

/** Prepared files have no position before they are used: they follow what is there. */
function placed({ segments, segmentBytes, positions }) {
  let end = positions.appended;
  return segments.map((segment) => {
    const isPlaced = segment.state !== "prepared" || (isNumber(segment.from) && segment.to > segment.from);
    const from = isPlaced ? segment.from : end;
    const to = isPlaced ? Math.max(segment.to, from) : from + segmentBytes;
    end = Math.max(end, to);
    return { ...segment, from, to };
  });
}

const isNumber = (value) => typeof value === "number";

/** What a segment holds, from its start to its end, without gaps. */
function fills(segment, needed, durable, appended, x) {
  if (segment.state === "prepared") return [];
  const cuts = [
    ["delivered", needed],
    ["needed", durable],
    ["undurable", appended],
    ["empty", segment.to],
  ];
  const found = [];
  let from = segment.from;
  for (const [kind, until] of cuts) {
    const to = Math.min(Math.max(until, from), segment.to);
    if (to > from) found.push({ kind, x: x(from), width: x(to) - x(from) });
    from = to;
  }
  return found;
}

/** The hole between the oldest and the newest, where segments are there and were not told. */
function leftOut(segments, count, needed, x) {
  if (count === 0) return null;
  for (let at = 1; at < segments.length; at += 1) {
    const [from, to] = [segments[at - 1].to, segments[at].from];
    if (to > from) {
      return { count, x: x(from), width: x(to) - x(from), kind: needed >= to ? "delivered" : "needed" };
    }
  }
  return null;
}

/** Where an endpoint is, and the stretch from there to the newest record. */
function lag({ name, acked, lagBytes }, appended, x) {
  const end = x(appended);
  const start = Math.min(x(acked), end);
  const width = lagBytes > 0 ? Math.max(SEEN_WIDTH_LEAST, end - start) : 0;
  return { name, x: start, lagX: end - width, lagWidth: width };
}

/** The picture in one sentence. */
export function described(writer, bytes) {
  const { appended, reclaimed, durable } = writer.positions;
  const undurable = appended - durable;
  const ends = writer.endpoints.map(({ name, lagBytes }) =>
    lagBytes === 0 ? `${name} has all of it` : `${name} still needs the last ${bytes(lagBytes)}`,
  );
  const sync = undurable > 0 ? `, the last ${bytes(undurable)} not yet on the device` : "";
  return `Log of ${bytes(appended - reclaimed)} on disk${sync}. ${ends.join("; ")}${ends.length > 0 ? "." : ""}`.trim();
}
