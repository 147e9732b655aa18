// Turns the modules that need no document into a list of what they get wrong.
const done = arguments[arguments.length - 1];
const failures = [];
let count = 0;
const same = (what, found, expected) => {
  count += 1;
  const [one, other] = [JSON.stringify(found), JSON.stringify(expected)];
  if (one !== other) failures.push(`${what}: ${one} instead of ${other}`);
};
const load = (name) => import(new URL(`assets/js/${name}.js`, document.baseURI).href);
const GAP = "\u202f";
const spaced = (text) => text.replaceAll(" ", GAP);
const near = (one, other) => Math.abs(one - other) < 1e-6;

async function formats() {
  const { ago, byteRate, bytes, count: short, dateTime, duration, exact, percent, plural, rate } = await load("format");
  const each = (format, pairs) => pairs.forEach(([value, text]) => same(`${format.name}(${value})`, format(value), text));
  each(short, [[0, "0"], [999, "999"], [1000, spaced("1 k")], [1234567, spaced("1.23 M")], [999_600, spaced("1 M")], [0.25, "0.25"], [12.34, "12.3"], [null, "–"], [NaN, "–"]]);
  each(rate, [[0, spaced("0 /s")], [12, spaced("12 /s")], [1_200_000, spaced("1.2 M/s")], [undefined, "–"]]);
  each(bytes, [[0, spaced("0 B")], [1023, spaced("1023 B")], [1023.9 * 1024, spaced("1 MiB")], [3_650_722_202, spaced("3.4 GiB")], [2 ** 60, spaced("1 EiB")], [Infinity, "–"]]);
  each(byteRate, [[2048, `${spaced("2 KiB")}/s`], [null, "–"]]);
  each(duration, [[0, spaced("0 s")], [0.000012, spaced("12 µs")], [0.34, spaced("340 ms")], [3.25, spaced("3.25 s")], [12.4, spaced("12 s")],
    [59.6, `1${GAP}min`], [192, `3${GAP}min 12${GAP}s`], [7500, `2${GAP}h 5${GAP}min`], [3600, `1${GAP}h`], [273_600, `3${GAP}d 4${GAP}h`], [null, "–"]]);
  each(ago, [[0.3, "just now"], [12, `12${GAP}s ago`]]);
  each(percent, [[0, `0${GAP}%`], [0.0001, `< 0.1${GAP}%`], [0.123, `12${GAP}%`], [0.0123, `1.2${GAP}%`], [0.99999, `> 99.9${GAP}%`], [1, `100${GAP}%`]]);
  each(exact, [[1234567, spaced("1 234 567")], [null, "–"]]);
  same("one", plural(1, "record", "records"), "1 record");
  same("no date", dateTime(new Date("nonsense")), "–");
}

const endpoint = (more) => ({
  name: "a", url: "", acked: 0, saved: 0, state: "delivering", lagBytes: 1024, lagSeconds: 0.5, etaSeconds: null, samplesPerSecond: 1,
  shards: { now: 1, desired: 1, min: 1, max: 1 }, inFlight: 0, lastError: null, lastErrorAt: null,
  records: { in: 0, delivered: 0, pending: 0, dropped: [] }, rejected: { files: 0, bytes: 0 }, ...more,
});

async function words() {
  const { account, componentID, endpointWords, etaWords, reasonWords, secondsUntilFull, splitID, writerWords } = await load("words");
  const said = (more) => {
    const { tone, title, text } = endpointWords(endpoint(more));
    return [tone, title, text.replaceAll(GAP, " ")];
  };
  same("keeps up", said({}), ["good", "Delivering", "keeps up, 1 KiB behind (500 ms)"]);
  same("idle", said({ state: "idle", lagBytes: 0 }), ["idle", "Idle", "it has everything there is"]);
  same("outage", said({ state: "retrying", lagSeconds: 192 }), ["warn", "Retrying", "1 KiB behind (3 min 12 s); what comes in is kept on disk"]);
  same("catching up", said({ lagSeconds: 192, etaSeconds: 61 }), ["busy", "Catching up", "1 KiB behind (3 min 12 s); empty in about 1 min 1 s"]);
  same("falling behind", said({ lagSeconds: 192 })[1], "Behind");
  same("draining", said({ state: "draining", lagSeconds: null })[2], "1 KiB behind; no end in sight: more comes in than goes out");
  same("stopped", said({ state: "stopped" })[0], "bad");
  same("nothing to drain", etaWords(endpoint({ lagBytes: 0, etaSeconds: 5 })), "up to date");
  same("nothing gets through", etaWords(endpoint({ state: "retrying", lagSeconds: 60 })), "no end in sight while nothing gets through");
  same("soon", etaWords(endpoint({ state: "draining", etaSeconds: 0.01 })).replaceAll(GAP, " "), "empty in about 1 s");
  const dropped = [{ reason: "a", records: 2 }, { reason: "b", records: 3 }];
  same("it adds up", account({ in: 20, delivered: 10, pending: 5, dropped }), { dropped: 5, missing: 0 });
  same("it does not", account({ in: 21, delivered: 10, pending: 5, dropped }), { dropped: 5, missing: 1 });
  const writer = { failed: null, stalled: null, isOutOfSpace: false, lost: [], diskBytes: 10, diskBytesMax: 100, samplesPerSecond: 0, bytesPerSecond: 2, endpoints: [endpoint({ state: "retrying" })] };
  const title = (more) => writerWords({ ...writer, ...more }).title;
  same("takes data", title({}), "Taking data");
  same("nearly full", title({ diskBytes: 90 }), "Nearly full");
  same("full", title({ diskBytes: 90, isOutOfSpace: true }), "Out of space");
  same("stalled", title({ stalled: "why", isOutOfSpace: true }), "Stalled");
  same("failed", title({ failed: "why", stalled: "why" }), "Failed");
  same("lost", title({ lost: [{ reason: "torn", bytes: 5 }] }), "Lost bytes");
  same("full soon", secondsUntilFull(writer), 45);
  same("never full", secondsUntilFull({ ...writer, endpoints: [endpoint({})] }), null);
  same("no quota", secondsUntilFull({ ...writer, diskBytesMax: null }), null);
  same("id in a module", componentID({ moduleID: "m.a", localID: "b.c" }), "m.a/b.c");
  same("a loss", reasonWords("quota"), { text: "disk quota reached", isAskedFor: false });
  same("no loss", reasonWords("dropped_series").isAskedFor, true);
  same("a new reason", reasonWords("constructor").text, "constructor");
  same("kind and label", splitID("prometheus.relabel.drop", "drop"), ["prometheus.relabel", "drop"]);
  same("no label", splitID("logging", ""), ["logging", ""]);
}

async function routes() {
  const { link, parse } = await load("router");
  same("root", parse(""), { page: "overview", parameter: "" });
  same("a page", parse("#/reservoir/"), { page: "reservoir", parameter: "" });
  same("an id", parse(link("components", "m.a/b.c d")), { page: "components", parameter: "m.a/b.c d" });
  same("an id with slashes", parse("#/components/m.a/b.c"), { page: "components", parameter: "m.a/b.c" });
  same("an alias", parse("#/component/a.b"), { page: "components", parameter: "a.b" });
  same("no alias", parse("#/constructor").page, "missing");
  same("broken codes", parse("#/debug/%E0%A4"), { page: "debug", parameter: "%E0%A4" });
  const { idPath, split } = await load("api");
  same("chunks", split("a|;|b|;|c"), [["a", "b"], "c"]);
  same("half a separator", split("a|;"), [[], "a|;"]);
  same("an id's path", idPath("m.a/b?c"), "m.a/b%3Fc");
}

async function pipelines() {
  const { crossings, layers, layout, place } = await load("graph/layout");
  const edges = [["a", "c"], ["b", "c"], ["c", "e"], ["b", "e"], ["e", "z"]].map(([from, to]) => ({ from, to }));
  same("layers", [...layers(["a", "b", "c", "e", "z"], edges)], [["a", 0], ["b", 0], ["c", 1], ["e", 2], ["z", 3]]);
  const circle = [{ from: "a", to: "b" }, { from: "b", to: "a" }];
  same("a circle ends", [...layers(["a", "b"], circle)].length, 2);
  same("as late as may be", layers(["a", "x", "c", "d", "e"], [["a", "c"], ["c", "d"], ["d", "e"], ["a", "x"], ["x", "e"]].map(([from, to]) => ({ from, to }))).get("x"), 2);
  same("a crossing", crossings([["a", "b"], ["c", "d"]], [["a", "d"], ["b", "c"]]), 1);
  same("none", crossings([["a", "b"], ["c", "d"]], [["a", "c"], ["b", "d"]]), 0);
  same("apart", place([0, 0], [0, 10]), [-5, 5]);
  same("where they want", place([0, 100], [0, 10]), [0, 100]);
  const boxes = ["a", "b", "c", "d", "e", "f"].map((id) => ({ id, width: 100, height: 40 }));
  const crossed = [["a", "f"], ["b", "e"], ["c", "d"]].map(([from, to]) => ({ from, to }));
  const plan = layout(boxes, crossed);
  same("no crossing is left", [...plan.places].filter(([id]) => "abc".includes(id)).map(([, { y }]) => y), [..."fed"].map((id) => plan.places.get(id).y));
  const overlaps = boxes.flatMap((one, at) => boxes.slice(at + 1).filter((other) => {
    const [p, q] = [plan.places.get(one.id), plan.places.get(other.id)];
    return Math.abs(p.x - q.x) < 100 && Math.abs(p.y - q.y) < 40;
  }));
  same("no boxes on each other", overlaps, []);
  const within = [...plan.places.values()].every(({ x, y }) => x >= 50 && y >= 20 && x <= plan.width - 50 + 1e-6 && y <= plan.height - 20 + 1e-6);
  same("all within", within, true);
  same("an unknown end", layout(boxes.slice(0, 1), [{ from: "a", to: "?" }]).paths, []);
  same("empty", layout([], []), { places: {}, paths: [], width: 0, height: 0 });
  const down = layout(boxes, crossed, { isDown: true });
  same("down", down.places.get("a").y < down.places.get("f").y, true);
}

async function logs() {
  const { described, geometry } = await load("log/geometry");
  const writer = {
    segmentBytes: 100,
    positions: { appended: 250, durable: 240, reclaimed: 0 },
    segments: [{ id: 0, from: 0, to: 100, state: "full" }, { id: 1, from: 100, to: 200, state: "full" }, { id: 2, from: 200, to: 300, state: "current" }, { id: 3, from: 0, to: 0, state: "prepared" }],
    endpoints: [endpoint({ name: "a", acked: 240, lagBytes: 10 }), endpoint({ name: "b", acked: 150, lagBytes: 100 }), endpoint({ name: "c", acked: 250, lagBytes: 0 })],
  };
  const view = geometry(writer, 400);
  same("to scale", view.segments.map(({ x, width }) => [x, width]), [[0, 100], [100, 100], [200, 100], [300, 100]]);
  const kinds = (segment) => segment.fills.map(({ kind, x, width }) => [kind, x, width]);
  same("delivered", kinds(view.segments[0]), [["delivered", 0, 100]]);
  same("needed by one", kinds(view.segments[1]), [["delivered", 100, 50], ["needed", 150, 50]]);
  same("the newest", kinds(view.segments[2]), [["needed", 200, 40], ["undurable", 240, 10], ["empty", 250, 50]]);
  same("prepared", kinds(view.segments[3]), []);
  same("marks", view.marks, { reclaimed: 0, durable: 240, appended: 250 });
  same("lags", view.endpoints.map(({ x, lagX, lagWidth }) => [x, lagX, lagWidth]), [[240, 240, 10], [150, 150, 100], [250, 250, 0]]);
  const far = geometry({ ...writer, positions: { ...writer.positions, appended: 2e12, durable: 2e12 }, segments: [{ id: 0, from: 0, to: 2e12, state: "full" }], endpoints: [endpoint({ acked: 2e12 - 5, lagBytes: 5 })] }, 400);
  same("a short lag is seen", far.endpoints[0].lagWidth, 2);
  const hole = geometry({ ...writer, segmentsLeftOut: 7, segments: [writer.segments[0], { ...writer.segments[2] }] }, 300);
  same("a hole", [hole.leftOut.count, hole.leftOut.x, hole.leftOut.width], [7, 100, 100]);
  const empty = geometry({ ...writer, positions: { appended: 0, durable: 0, reclaimed: 0 }, segments: [], endpoints: [] }, 300);
  same("an empty log", [empty.segments, empty.endpoints, empty.leftOut], [[], [], null]);
  const text = described(writer, (value) => `${value} B`);
  same("in words", text, "Log of 250 B on disk, the last 10 B not yet on the device. a still needs the last 10 B; b still needs the last 100 B; c has all of it.");
}

async function charts() {
  const { ages, greatest, last, linePath, ticks } = await load("chart/scale");
  same("tens", ticks(7.3e6, 4), [0, 2e6, 4e6, 6e6, 8e6]);
  same("twos", ticks(3 * 2 ** 30, 4, 2), [0, 2 ** 30, 2 ** 31, 3 * 2 ** 30]);
  same("little", ticks(0.031, 4).every((tick, at) => near(tick, at * 0.01)), true);
  same("minutes", ticks(1400, 4, 60), [0, 600, 1200, 1800]);
  same("milliseconds", ticks(0.0081, 4, 60).map((tick) => Math.round(tick * 1e6)), [0, 2500, 5000, 7500, 10000]);
  same("days", ticks(86_400 * 9, 4, 60), [0, 259_200, 518_400, 777_600]);
  same("nothing", ticks(0, 4), [0, 1]);
  same("ages", ages(3600), [3600, 2400, 1200, 0]);
  same("a line with a hole", linePath([1, 2, null, 3], (x) => x, (y) => y), "M0,1L1,2M3,3h0.1");
  same("greatest", greatest([[1, null, 5], [2]]), 5);
  same("last", last([1, 2, null]), 2);
}

async function texts() {
  const { plain, tokens } = await load("parts/statements");
  const text = (value) => ({ type: "string", value });
  const body = [
    { name: "url", type: "attr", value: text("a\"b") },
    { name: "password", type: "attr", value: { type: "capsule", value: "(secret)" } },
    { name: "rule", type: "block", label: "x", body: [{ name: "on", type: "attr", value: { type: "bool", value: true } }] },
    { name: "none", type: "block", body: [] },
    { name: "list", type: "attr", value: { type: "array", value: [{ type: "number", value: 1 }, { type: "null", value: null }] } },
    { name: "labels", type: "attr", value: { type: "object", value: [{ key: "a b", value: text("c") }] } },
  ];
  same("configuration text", plain(tokens(body)),
    "url      = \"a\\\"b\"\npassword = (secret)\n\nrule \"x\" {\n  on = true\n}\n\nnone { }\nlist   = [1, null]\nlabels = {\n  \"a b\" = \"c\",\n}\n");
  let deep = { type: "number", value: 1 };
  for (let level = 0; level < 200; level += 1) deep = { type: "array", value: [deep] };
  same("deep nesting ends", plain(tokens([{ name: "a", type: "attr", value: deep }])).includes("…"), true);
  const { LINES_MAX, LINE_CHARACTERS_MAX, LineKeeper } = await load("parts/lines");
  const keeper = new LineKeeper();
  for (let at = 0; at < LINES_MAX + 5; at += 1) keeper.add(`line ${at}\n\n`);
  same("the oldest go", [keeper.lines.length, keeper.left, keeper.lines[0]], [LINES_MAX, 5, "line 5"]);
  keeper.add("x".repeat(LINE_CHARACTERS_MAX * 2));
  same("long lines are cut", keeper.lines[LINES_MAX - 1].length, LINE_CHARACTERS_MAX + 1);
  keeper.clear();
  same("cleared", [keeper.lines, keeper.left], [[], 0]);
  const { matches, sorted } = await load("pages/components");
  const component = (localID, state, message = "") => ({ moduleID: "", localID, health: { state, message } });
  same("filter", matches(component("a.b", "healthy", "on port"), "PORT a", ""), true);
  same("filter by health", matches(component("a.b", "healthy"), "", "exited"), false);
  same("the sick first", sorted([component("a", "healthy"), component("b", "unhealthy")]).map(({ localID }) => localID), ["b", "a"]);
  const { rates } = await load("pages/overview");
  same("rates", [...rates('[{"componentID":"a","targetComponentIDs":["b","c"],"type":"metrics","rate":2}]')], [["a\nb", 2], ["a\nc", 2]]);
  same("no rates", [...rates("nonsense")], []);
}

(async () => {
  for (const part of [formats, words, routes, pipelines, logs, charts, texts]) {
    try {
      await part();
    } catch (error) {
      failures.push(`${part.name}: ${error.stack ?? error}`);
    }
  }
  done({ failures, count });
})();
