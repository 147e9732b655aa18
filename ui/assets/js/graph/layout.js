/**
 * Turns nodes and edges into places on a plane: layers along the flow, few crossings, short edges.
 *
 * The classic steps: a layer for each node (as late as its successors allow; sources first, sinks
 * last), a bend for each layer an edge passes, an order within each layer (barycentres, the best of
 * some sweeps), coordinates (least squares under the distances that must be). Pure and
 * deterministic: the same graph looks the same each time.
 *
 * Limits: an edge that closes a circle is left out of the layers and drawn all the same. A sweep is
 * linear, counting crossings quadratic in the edges of a layer; graphs of pipelines are small.
 *
 * @typedef {{id: string, width: number, height: number}} Box
 * @typedef {{from: string, to: string}} Arrow
 * @typedef {{x: number, y: number}} Point  of a box its middle
 */

const SWEEPS = 12;

/**
 * @param {Box[]} boxes
 * @param {Arrow[]} arrows  those that name an unknown box are left out
 * @param {{isDown?: boolean, layerGap?: number, nodeGap?: number}} [options]
 */
export function layout(boxes, arrows, { isDown = false, layerGap = 90, nodeGap = 26 } = {}) {
  const known = new Map(boxes.map((box) => [box.id, box]));
  const edges = arrows.filter(({ from, to }) => known.has(from) && known.has(to) && from !== to);
  const ranks = layers(boxes.map(({ id }) => id), edges);
  const { rows, chains, links } = withBends(boxes, edges, ranks);
  order(rows, links);
  // Along the flow is "depth", across it "breadth"; only the last step knows which is x.
  const depth = (id) => (isDown ? known.get(id)?.height : known.get(id)?.width) ?? 0;
  const breadth = (id) => (isDown ? known.get(id)?.width : known.get(id)?.height) ?? 0;
  const across = spread(rows, links, breadth, nodeGap);
  const along = stack(rows, depth, layerGap);
  const point = (id, rank) => (isDown ? { x: across.get(id), y: along[rank] } : { x: along[rank], y: across.get(id) });
  const rankOf = new Map(rows.flatMap((row, rank) => row.map((id) => [id, rank])));
  const places = new Map(boxes.map(({ id }) => [id, point(id, rankOf.get(id))]));
  const paths = edges.map((edge, at) => ({ ...edge, points: chains[at].map((id) => point(id, rankOf.get(id))) }));
  return { places, paths, ...extent(boxes, places) };
}

/** The layer of each node. Sources are at 0, sinks at the last, the others right before their successors. */
export function layers(ids, edges) {
  const after = grouped(ids, edges, "from", "to");
  const before = grouped(ids, edges, "to", "from");
  const sorted = topological(ids, after);
  const place = new Map(sorted.map((id, at) => [id, at]));
  const isForward = (from, to) => place.get(from) < place.get(to);
  const ranks = new Map();
  for (const id of sorted) {
    const above = before.get(id).filter((other) => isForward(other, id));
    ranks.set(id, above.reduce((most, other) => Math.max(most, ranks.get(other) + 1), 0));
  }
  const last = Math.max(0, ...ranks.values());
  for (const id of sorted.reverse()) {
    if (before.get(id).length === 0) continue;
    const below = after.get(id).filter((other) => isForward(id, other));
    ranks.set(id, below.reduce((least, other) => Math.min(least, ranks.get(other) - 1), last));
  }
  return ranks;
}

function grouped(ids, edges, key, value) {
  const groups = new Map(ids.map((id) => [id, []]));
  for (const edge of edges) groups.get(edge[key]).push(edge[value]);
  return groups;
}

/** Depth first, without recursion: a node comes before all it reaches, circles apart. */
function topological(ids, after) {
  const seen = new Set();
  const sorted = [];
  for (const start of [...ids].reverse()) {
    if (seen.has(start)) continue;
    seen.add(start);
    const stack = [[start, 0]];
    while (stack.length > 0) {
      const top = stack[stack.length - 1];
      const next = after.get(top[0])[top[1]];
      top[1] += 1;
      if (next === undefined) sorted.push(stack.pop()[0]);
      else if (!seen.has(next)) {
        seen.add(next);
        stack.push([next, 0]);
      }
    }
  }
  return sorted.reverse();
}

/** Rows of ids by layer; an edge over several layers gets a bend in each between. */
function withBends(boxes, edges, ranks) {
  const rows = Array.from({ length: Math.max(0, ...ranks.values()) + 1 }, () => []);
  for (const { id } of boxes) rows[ranks.get(id)].push(id);
  const links = [];
  const chains = edges.map(({ from, to }, at) => {
    const chain = [from];
    for (let rank = ranks.get(from) + 1; rank < ranks.get(to); rank += 1) {
      const bend = `\0${at}\0${rank}`;
      rows[rank].push(bend);
      chain.push(bend);
    }
    chain.push(to);
    for (let step = 1; step < chain.length; step += 1) links.push([chain[step - 1], chain[step]]);
    return chain;
  });
  return { rows, chains, links };
}

/** Sorts each row by where its neighbours are, to and fro, and keeps the order that crosses least. */
function order(rows, links) {
  let best = rows.map((row) => [...row]);
  let least = crossings(rows, links);
  for (let sweep = 0; sweep < SWEEPS && least > 0; sweep += 1) {
    const isForth = sweep % 2 === 0;
    const sequence = isForth ? rows : [...rows].reverse();
    for (const row of sequence) sortRow(row, rows, links, isForth);
    const now = crossings(rows, links);
    if (now < least) {
      least = now;
      best = rows.map((row) => [...row]);
    }
  }
  rows.forEach((row, at) => row.splice(0, row.length, ...best[at]));
}

function sortRow(row, rows, links, isForth) {
  const at = new Map(rows.flatMap((other) => other.map((id, index) => [id, index])));
  const weight = new Map(row.map((id, index) => {
    const near = links.filter((link) => link[isForth ? 1 : 0] === id).map((link) => at.get(link[isForth ? 0 : 1]));
    return [id, near.length === 0 ? index : near.reduce((sum, place) => sum + place, 0) / near.length];
  }));
  row.sort((one, other) => weight.get(one) - weight.get(other));
}

/** How often edges cross between neighbouring rows. */
export function crossings(rows, links) {
  const rank = new Map(rows.flatMap((row, at) => row.map((id, index) => [id, [at, index]])));
  const ends = links.map(([from, to]) => [...rank.get(from), ...rank.get(to)]);
  let count = 0;
  for (let one = 0; one < ends.length; one += 1) {
    for (let other = one + 1; other < ends.length; other += 1) {
      const [a, b] = [ends[one], ends[other]];
      if (a[0] === b[0] && a[2] === b[2] && (a[1] - b[1]) * (a[3] - b[3]) < 0) count += 1;
    }
  }
  return count;
}

/** Breadth coordinates: each row as near to its neighbours as distances allow, some times over. */
function spread(rows, links, breadth, gap) {
  const across = new Map();
  for (const row of rows) {
    let edge = 0;
    for (const id of row) {
      across.set(id, edge + breadth(id) / 2);
      edge += breadth(id) + gap;
    }
  }
  for (let pass = 0; pass < SWEEPS; pass += 1) {
    for (const row of pass % 2 === 0 ? rows : [...rows].reverse()) {
      const wanted = row.map((id) => {
        const near = links.filter((link) => link.includes(id)).map(([from, to]) => across.get(from === id ? to : from));
        return near.length === 0 ? across.get(id) : near.reduce((sum, place) => sum + place, 0) / near.length;
      });
      const apart = row.map((id, at) => (at === 0 ? 0 : (breadth(row[at - 1]) + breadth(id)) / 2 + gap));
      place(wanted, apart).forEach((where, at) => across.set(row[at], where));
    }
  }
  const least = Math.min(...[...across].map(([id, where]) => where - breadth(id) / 2));
  for (const [id, where] of across) across.set(id, where - least);
  return across;
}

/** The places nearest to the wanted ones (squares) with at least `apart[i]` after the one before. */
export function place(wanted, apart) {
  let offset = 0;
  const offsets = apart.map((distance) => (offset += distance));
  // Pools of neighbours that touch; each pool is at the mean of what its members want.
  const pools = [];
  wanted.forEach((want, at) => {
    pools.push({ sum: want - offsets[at], count: 1 });
    while (pools.length > 1) {
      const [before, last] = pools.slice(-2);
      if (before.sum / before.count <= last.sum / last.count) break;
      pools.splice(-2, 2, { sum: before.sum + last.sum, count: before.count + last.count });
    }
  });
  return pools.flatMap(({ sum, count }) => Array(count).fill(sum / count)).map((base, at) => base + offsets[at]);
}

function stack(rows, depth, gap) {
  let edge = 0;
  return rows.map((row) => {
    const size = Math.max(0, ...row.map(depth));
    const middle = edge + size / 2;
    edge += size + gap;
    return middle;
  });
}

function extent(boxes, places) {
  const right = boxes.map(({ id, width }) => places.get(id).x + width / 2);
  const bottom = boxes.map(({ id, height }) => places.get(id).y + height / 2);
  return { width: Math.max(0, ...right), height: Math.max(0, ...bottom) };
}

/** A smooth path along points, which leaves and arrives along the flow. */
export function curve(points, isDown) {
  const text = ({ x, y }) => `${round(x)},${round(y)}`;
  return points.slice(1).reduce((path, to, at) => {
    const from = points[at];
    const [one, two] = isDown
      ? [{ x: from.x, y: (from.y + to.y) / 2 }, { x: to.x, y: (from.y + to.y) / 2 }]
      : [{ x: (from.x + to.x) / 2, y: from.y }, { x: (from.x + to.x) / 2, y: to.y }];
    return `${path}C${text(one)} ${text(two)} ${text(to)}`;
  }, `M${text(points[0])}`);
}

/** Where along the first gap of an edge its label may be, the best first. */
const LABEL_SHARES = [0.5, 0.32, 0.68, 0.2, 0.8];
const LABEL = { width: 58, height: 17 };

/** A place for each edge's label: on its curve, and not on another label where there is a way. */
export function labelPlaces(routes, isDown) {
  const taken = [];
  return routes.map(([from, to]) => {
    const places = LABEL_SHARES.map((share) => along(from, to, share, isDown));
    const isFree = ({ x, y }) =>
      taken.every((other) => Math.abs(other.x - x) >= LABEL.width || Math.abs(other.y - y) >= LABEL.height);
    const found = places.find(isFree) ?? places[0];
    taken.push(found);
    return found;
  });
}

/** A point of the curve that `curve` draws between two points. */
function along(from, to, share, isDown) {
  // Half of the way of a cubic whose handles are at its middle, and the S of the other half.
  const rest = 1 - share;
  const straight = 1.5 * share * rest + share ** 3;
  const swung = 3 * share * share * rest + share ** 3;
  const [x, y] = isDown ? [swung, straight] : [straight, swung];
  return { x: from.x + (to.x - from.x) * x, y: from.y + (to.y - from.y) * y };
}

const round = (value) => Math.round(value * 10) / 10;
