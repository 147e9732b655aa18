/**
 * Turns components, rates and the reservoir into one look at the whole: numbers, pipeline, agent.
 */

import { Changes } from "../announce.js";
import { h, setChildren, setText } from "../dom.js";
import { bytes, count, dateTime, duration, percent, rate } from "../format.js";
import { graphView } from "../graph/view.js";
import { badge, figure, figures, linkList, notice, section } from "../parts/common.js";
import { follow, poll } from "../poll.js";
import { link } from "../router.js";
import { componentID, endpointWords, healthTone, splitID, writerWords } from "../words.js";

const INTERVAL_MS = 1000;
const COMPONENTS_INTERVAL_MS = 2000;
const AGENT_INTERVAL_MS = 5000;

/** @param {HTMLElement} place @param {string} _parameter @param {AbortSignal} signal */
export function show(place, _parameter, signal) {
  const input = figure("Comes in");
  const output = figure("Goes out");
  const series = figure("Active series");
  const kept = figure("On disk");
  const lag = figure("Furthest behind");
  const troubles = h("div", { class: "stack troubles" });
  const graph = graphView(signal);
  const aside = h("div");
  const agent = agentCard();
  place.append(
    h("h1", {}, "Overview"),
    h("div", { class: "card" }, figures(input, output, series, kept, lag)),
    troubles,
    h("section", { class: "card graph-card" }, h("h2", {}, "Pipeline"), graph.element, aside),
    agent.element,
  );
  const state = { components: null, reservoir: null, rates: new Map() };
  const changes = new Changes();

  const draw = () => {
    if (state.components === null) return;
    const { nodes, flows, apart } = pipeline(state);
    graph.show(nodes, flows);
    setChildren(aside, apart.length > 0 && [h("h3", {}, "Beside the flow"), linkList(apart)]);
    showTroubles(troubles, state);
  };
  poll("components", {
    signal,
    intervalMs: COMPONENTS_INTERVAL_MS,
    onNews(news) {
      state.components = news;
      for (const component of news) changes.see(component.localID, component.health.state);
      draw();
    },
  });
  poll("reservoir", {
    signal,
    intervalMs: INTERVAL_MS,
    onNews(news) {
      state.reservoir = news;
      showNumbers({ input, output, series, kept, lag }, news.writers);
      draw();
    },
  });
  poll("agent", { signal, intervalMs: AGENT_INTERVAL_MS, onNews: agent.update });
  follow("graph?window=1", {
    signal,
    onChunk(chunk) {
      state.rates = rates(chunk);
      draw();
    },
  });
}

/** One chunk of the graph stream as rates by "from\nto"; what cannot be read is no rate. */
export function rates(chunk) {
  /** @type {import("../contract.js").Edge[]} */
  let edges = [];
  try {
    edges = JSON.parse(chunk);
  } catch {
    return new Map();
  }
  const all = new Map();
  for (const { componentID: from, targetComponentIDs, rate: value } of edges) {
    for (const to of targetComponentIDs) {
      const key = `${from}\n${to}`;
      all.set(key, (all.get(key) ?? 0) + value);
    }
  }
  return all;
}

/** Nodes and flows of the picture, and the components that no data flows through. */
export function pipeline({ components, reservoir, rates: known }) {
  const writers = reservoir?.writers ?? [];
  const endpoints = writers.flatMap((writer) => writer.endpoints.map((endpoint) => ({ writer, endpoint })));
  const flows = [
    ...components.flatMap((component) =>
      component.dataFlowEdgesTo.map((to) => {
        const [from, target] = [component.localID, to];
        return { from, to: target, rate: known.get(`${from}\n${target}`) ?? null };
      })),
    ...endpoints.map(({ writer, endpoint }) => ({ from: writer.id, to: endpointKey(writer, endpoint), rate: endpoint.samplesPerSecond })),
  ];
  const touched = new Set(flows.flatMap(({ from, to }) => [from, to]));
  const inFlow = components.filter(({ localID }) => touched.has(localID));
  const apart = components.filter(({ localID }) => !touched.has(localID));
  return {
    nodes: [
      ...inFlow.map((component) => componentNode(component, writers, known)),
      ...endpoints.map(({ writer, endpoint }) => endpointNode(writer, endpoint)),
    ],
    flows,
    apart: apart.map((component) => ({ href: link("components", componentID(component)), text: component.localID })),
  };
}

const endpointKey = (writer, endpoint) => `${writer.id}\u0000${endpoint.name}`;

function componentNode(component, writers, known) {
  const [kind, label] = splitID(component.localID, component.label);
  const writer = writers.find(({ id }) => id === component.localID);
  const isHealthy = component.health.state === "healthy";
  const words = writer && isHealthy ? writerWords(writer) : null;
  const out = [...known].filter(([key]) => key.startsWith(`${component.localID}\n`)).map(([, value]) => value);
  const sum = out.reduce((most, value) => Math.max(most, value), 0);
  const disk = writer ? `${bytes(writer.diskBytes)} on disk` : out.length > 0 ? rate(sum) : component.health.state;
  return {
    id: component.localID,
    kind: label === "" ? "" : kind,
    label: label === "" ? kind : label,
    note: disk,
    shortNote: writer ? bytes(writer.diskBytes) : disk,
    tone: words?.tone ?? healthTone(component.health.state),
    toneText: words ? `${words.title}: ${words.text}` : `${component.health.state}: ${component.health.message}`,
    href: link("components", componentID(component)),
    isEndpoint: false,
  };
}

function endpointNode(writer, endpoint) {
  const { tone, title, text } = endpointWords(endpoint);
  return {
    id: endpointKey(writer, endpoint),
    kind: "endpoint",
    label: endpoint.name,
    note: endpoint.lagBytes === 0 ? "has all" : `${bytes(endpoint.lagBytes)} behind`,
    shortNote: endpoint.lagBytes === 0 ? "has all" : `−${bytes(endpoint.lagBytes)}`,
    tone,
    toneText: `${title}: ${text}`,
    href: link("reservoir"),
    isEndpoint: true,
  };
}

function showNumbers({ input, output, series, kept, lag }, writers) {
  const sum = (pick) => writers.reduce((all, writer) => all + pick(writer), 0);
  const endpoints = writers.flatMap((writer) => writer.endpoints);
  input.update(rate(sum((writer) => writer.samplesPerSecond)), `${bytes(sum((writer) => writer.bytesPerSecond))}/s to disk`);
  output.update(rate(endpoints.reduce((all, endpoint) => all + endpoint.samplesPerSecond, 0)), endpoints.length === 1 ? "to 1 endpoint" : `to ${endpoints.length} endpoints`);
  series.update(count(sum((writer) => writer.series)));
  kept.update(bytes(sum((writer) => writer.diskBytes)), quotaNote(writers));
  const worst = endpoints.reduce((found, endpoint) => (endpoint.lagBytes > (found?.lagBytes ?? 0) ? endpoint : found), null);
  lag.update(worst === null ? "none" : bytes(worst.lagBytes), worst === null ? "" : `${worst.name}, ${duration(worst.lagSeconds)}`);
}

/** The fullest of those that have a quota: one full writer is trouble enough. */
function quotaNote(writers) {
  const shares = writers.filter(({ diskBytesMax }) => diskBytesMax !== null).map(({ diskBytes, diskBytesMax }) => diskBytes / diskBytesMax);
  return shares.length === 0 ? "no quota" : `quota used: ${percent(Math.max(...shares))}`;
}

/** What deserves a look, in words, with the way to it. */
function showTroubles(place, { components, reservoir }) {
  const found = [];
  for (const component of components) {
    if (component.health.state !== "unhealthy" && component.health.state !== "exited") continue;
    const href = link("components", componentID(component));
    found.push(["bad", component.localID, href, `${component.health.state}: ${component.health.message}`]);
  }
  for (const writer of reservoir?.writers ?? []) {
    const { tone, title, text } = writerWords(writer);
    if (tone !== "good") found.push([tone, writer.id, link("reservoir"), `${title}: ${text}`]);
    for (const endpoint of writer.endpoints) {
      const words = endpointWords(endpoint);
      if (words.tone === "warn" || words.tone === "bad") found.push([words.tone, endpoint.name, link("reservoir"), `${words.title}: ${words.text}`]);
    }
  }
  const key = JSON.stringify(found);
  if (place.dataset.shown === key) return;
  place.dataset.shown = key;
  const held = place.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  setChildren(place, found.map(([tone, name, href, text]) => notice(tone, h("a", { href }, name), ` ${text}`)));
  if (held !== null) place.querySelector(`a[href="${CSS.escape(held)}"]`)?.focus();
}

function agentCard() {
  const load = badge();
  const names = ["Version", "Up", "Configuration", "Hash", "Loaded", "I/O engine", "Ingest threads", "Storage"];
  const values = new Map(names.map((name) => [name, h("dd")]));
  const error = h("pre", { class: "load-error", hidden: true, tabindex: "0" });
  const list = h("dl", { class: "facts" }, names.map((name) => h("div", {}, h("dt", {}, name), values.get(name))));
  const element = section("Agent", load.element, error, list);
  /** @param {import("../contract.js").Agent} agent */
  const update = ({ version, uptimeSeconds, ioEngine, threads, storagePath, config }) => {
    const loaded = config.loadedAt === null ? "–" : dateTime(new Date(config.loadedAt * 1000));
    const texts = [version, duration(uptimeSeconds), config.path, config.sha256.slice(0, 12), loaded, ioEngine, threads, storagePath];
    names.forEach((name, at) => setText(values.get(name), texts[at]));
    if (config.isLastLoadGood) load.update("good", "configuration loaded");
    else load.update("bad", "the last load failed; the configuration before it is in use");
    error.hidden = config.error === null;
    setText(error, config.error ?? "");
  };
  return { element, update };
}
