/**
 * Turns a writer's series into who has the most of them: metrics, labels, pairs; and the tenants.
 */

import { AnswerError, idPath, json } from "../api.js";
import { h, setChildren, setText } from "../dom.js";
import { clock, count, exact, percent, rate } from "../format.js";
import { gauge, loading, notice, section, table } from "../parts/common.js";
import { poll } from "../poll.js";

const TOPS = [10, 20, 50, 100];
/** The agent keeps its answer for 30 s. */
const INTERVAL_MS = 30_000;
const WRITERS_INTERVAL_MS = 10_000;

/** @param {HTMLElement} place @param {string} parameter @param {AbortSignal} signal */
export function show(place, parameter, signal) {
  const writer = h("select", { id: "writer" });
  const top = h("select", { id: "top" }, TOPS.map((number) => h("option", { value: number, selected: number === 20 }, number)));
  const total = h("p", { class: "lead", role: "status" });
  const lists = h("div", { class: "stack" }, loading());
  const tenants = h("div", { class: "stack" });
  place.append(
    h("h1", {}, "Cardinality"),
    h("form", { class: "tools", on: { submit: (event) => event.preventDefault() } }, h("label", { for: "writer" }, "Writer ", writer), h("label", { for: "top" }, "Top ", top)),
    total,
    lists,
    tenants,
  );
  let asking = new AbortController();
  signal.addEventListener("abort", () => asking.abort());

  const ask = () => {
    asking.abort();
    asking = new AbortController();
    poll(`cardinality/${idPath(writer.value)}?top=${top.value}`, {
      signal: asking.signal,
      intervalMs: INTERVAL_MS,
      onNews: (news) => showSeries(total, lists, news),
      onRefused: (error) => setChildren(lists, notice("warn", error.message)),
    });
  };
  writer.addEventListener("change", ask);
  top.addEventListener("change", ask);
  poll("reservoir", {
    signal,
    intervalMs: WRITERS_INTERVAL_MS,
    onNews({ writers }) {
      const ids = writers.map(({ id }) => id);
      if (ids.length === 0) return setChildren(lists, notice("idle", "No component of this configuration keeps series."));
      if (JSON.stringify(ids) === writer.dataset.ids) return;
      const chosen = writer.value || parameter;
      writer.dataset.ids = JSON.stringify(ids);
      setChildren(writer, ids.map((id) => h("option", { value: id, selected: id === chosen }, id)));
      ask();
    },
  });
  askTenants(tenants, signal);
}

/** @param {import("../contract.js").Cardinality} news */
function showSeries(total, lists, news) {
  const about = news.isApproximate ? ", counts are approximate" : "";
  setText(total, `${exact(news.series)} series at ${clock(news.takenAt)}${about}`);
  setChildren(
    lists,
    bars("Metrics by series", "metric", news.metrics.map(({ name, series }) => ({ name, series })), news.series),
    bars("Labels by number of values", "label", news.labels.map(({ name, values, series }) => ({ name, series: values, note: `${count(series)} series` })), null),
    bars("Label values by series", "label value", news.pairs.map(({ name, value, series }) => ({ name: `${name}="${value}"`, series })), news.series),
  );
}

/** A table whose numbers are also bars; `all` is what they are shares of. */
function bars(title, what, rows, all) {
  const most = Math.max(1, ...rows.map(({ series }) => series));
  const cells = rows.map(({ name, series, note }) => {
    const bar = h("span", { class: "bar-level", "aria-hidden": "true" });
    bar.style.setProperty("inline-size", `${(series / most) * 100}%`);
    const share = note ?? (all > 0 ? percent(series / all) : "");
    return [h("span", { class: "bar-name" }, name), h("span", { class: "bar-box" }, bar), exact(series), h("span", { class: "muted" }, share)];
  });
  const columns = [{ title: what }, { title: "" }, { title: all === null ? "values" : "series", isNumber: true }, { title: all === null ? "on" : "share", isNumber: true }];
  const card = section(title, rows.length === 0 ? h("p", { class: "muted" }, "none") : table(title, columns, cells));
  card.classList.add("bars");
  return card;
}

/** Most agents have no tenants: what is refused once is not asked for again. */
async function askTenants(place, signal) {
  try {
    await json("tenants", signal);
  } catch (error) {
    if (error instanceof AnswerError || signal.aborted) return;
  }
  poll("tenants", { signal, intervalMs: WRITERS_INTERVAL_MS, onNews: (news) => showTenants(place, news) });
}

/** @param {import("../contract.js").Tenants[]} news */
function showTenants(place, news) {
  const key = JSON.stringify(news);
  if (place.dataset.shown === key) return;
  place.dataset.shown = key;
  const columns = ["tenant", "active series", "limit", "samples", "refused", "refused most"];
  setChildren(place, news.filter(({ tenants }) => tenants.length > 0).map(({ receiver, tenants }) => {
    const rows = tenants.map((tenant) => [
      tenant.tenant,
      limitCell(tenant),
      tenant.limit === null ? "none" : exact(tenant.limit),
      rate(tenant.samplesPerSecond),
      exact(tenant.refused),
      tenant.top.slice(0, 3).map(({ label, value, refused }) => h("span", { class: "top-refused" }, `${label}="${value}" ${count(refused)}`)),
    ]);
    const caption = `Tenants of ${receiver}`;
    return section(caption, table(caption, columns.map((title, at) => ({ title, isNumber: at > 0 && at < 5 })), rows));
  }));
}

function limitCell({ activeSeries, limit }) {
  if (limit === null) return exact(activeSeries);
  const share = activeSeries / Math.max(1, limit);
  const meter = gauge("Share of the limit");
  meter.update(share, exact(activeSeries), share >= 1 ? "bad" : share >= 0.85 ? "warn" : "good");
  return meter.element;
}
