/**
 * Turns the writers' logs into the page one opens during an outage: what is kept, for whom, how long.
 */

import { lineChart } from "../chart/line.js";
import { h, keyed, setChildren } from "../dom.js";
import { duration } from "../format.js";
import { loading, notice } from "../parts/common.js";
import { writerCard } from "../parts/writer.js";
import { poll } from "../poll.js";

const INTERVAL_MS = 1000;
/** The agent's own step. */
const HISTORY_INTERVAL_MS = 10_000;

/** @param {HTMLElement} place @param {string} _parameter @param {AbortSignal} signal */
export function show(place, _parameter, signal) {
  const wait = loading();
  const writers = h("div", { class: "stack" });
  const receivers = h("div", { class: "charts" });
  const front = h("section", { class: "card", hidden: true }, h("h2", {}, "Acknowledging senders"),
    h("p", { class: "muted" }, "From the head of a request to its answer. What is acknowledged is on the device."), receivers);
  place.append(
    h("h1", {}, "Reservoir"),
    h("p", { class: "lead" }, "What was acknowledged stays here until every endpoint has it."),
    wait,
    writers,
    front,
  );
  /** @type {import("../contract.js").History | null} */
  let history = null;
  let now = 0;
  const cards = new Map();
  const make = (first) => {
    const card = writerCard(first, signal);
    cards.set(first.id, card);
    if (history !== null) card.showHistory(history);
    return { element: card.element, update: (writer) => card.update(writer, now) };
  };

  poll("reservoir", {
    signal,
    intervalMs: INTERVAL_MS,
    onNews(/** @type {import("../contract.js").Reservoir} */ news) {
      now = news.now;
      wait.hidden = news.writers.length > 0;
      if (news.writers.length === 0) setChildren(wait, notice("idle", "No component of this configuration keeps a log."));
      for (const id of cards.keys()) if (!news.writers.some((writer) => writer.id === id)) cards.delete(id);
      keyed(writers, news.writers, ({ id }) => id, make);
    },
  });
  poll("history?seconds=3600", {
    signal,
    intervalMs: HISTORY_INTERVAL_MS,
    onNews(news) {
      history = news;
      for (const card of cards.values()) card.showHistory(news);
      showReceivers(receivers, news, signal);
      front.hidden = receivers.childElementCount === 0;
    },
  });
}

/** A chart for each receiver: how long senders wait. */
function showReceivers(place, history, signal) {
  const ids = [...new Set(history.series.filter(({ kind }) => kind === "receiver").map(({ id }) => id))];
  const lines = (id) =>
    [["p50", "ackP50Seconds"], ["p99", "ackP99Seconds"]].flatMap(([label, metric]) =>
      history.series.filter((series) => series.kind === "receiver" && series.id === id && series.metric === metric)
        .map(({ values }) => ({ label, values })));
  const charts = ids.map((id) => ({ id, from: history.from, stepSeconds: history.stepSeconds, lines: lines(id) }));
  keyed(place, charts.filter((data) => data.lines.length > 0), ({ id }) => id, ({ id }) => {
    const chart = lineChart({ title: id, format: duration, base: 60, signal });
    return { element: chart.element, update: chart.show };
  });
}
