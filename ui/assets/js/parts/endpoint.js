/**
 * Turns one endpoint of a writer into a panel: how it does, how far it is, what it lost.
 */

import { Changes } from "../announce.js";
import { h, setAttribute, setText, svg } from "../dom.js";
import { ago, bytes, count, duration, exact, rate } from "../format.js";
import { endpointWords, etaWords } from "../words.js";
import { badge, figure, figures } from "./common.js";
import { ledger } from "./ledger.js";
import { rejected } from "./rejected.js";

const changes = new Changes();

/**
 * @param {import("../contract.js").Endpoint} first
 * @param {string} writerID
 * @param {AbortSignal} signal
 */
export function endpointPanel(first, writerID, signal) {
  const state = badge();
  const words = h("p", { class: "endpoint-words" });
  const behind = figure("Lag");
  const age = figure("Oldest waiting");
  const eta = figure("Until empty");
  const out = figure("Delivers");
  const shards = shardGauge();
  const error = h("p", { class: "endpoint-error" });
  const accounts = ledger();
  const letters = rejected(writerID, first.name, signal);
  const element = h(
    "article",
    { class: "endpoint", "data-endpoint": first.name },
    h("header", { class: "endpoint-head" }, h("div", {}, h("h3", {}, first.name), h("p", { class: "address" }, first.url)), state.element),
    words,
    error,
    figures(behind, age, eta, out),
    shards.element,
    h("h4", {}, "Account"),
    accounts.element,
    letters.element,
  );

  /** @param {import("../contract.js").Endpoint} endpoint @param {number} now */
  function update(endpoint, now) {
    const { tone, title, text } = endpointWords(endpoint);
    state.update(tone, title);
    setText(words, text.charAt(0).toUpperCase() + text.slice(1));
    setAttribute(element, "data-state", endpoint.state);
    changes.see(`${writerID} to ${endpoint.name}`, title);
    behind.update(bytes(endpoint.lagBytes), "", exact(endpoint.lagBytes));
    age.update(endpoint.lagBytes === 0 ? "–" : duration(endpoint.lagSeconds));
    const [time, note] = etaFigure(endpoint);
    eta.update(time, note);
    out.update(rate(endpoint.samplesPerSecond), `${count(endpoint.inFlight)} in flight`);
    shards.update(endpoint.shards);
    showError(error, endpoint, now);
    accounts.update(endpoint.records);
    const refused = endpoint.records.dropped.filter(({ reason }) => reason.startsWith("refused"));
    letters.update(endpoint.rejected, refused.reduce((sum, { records }) => sum + records, 0));
  }
  return { element, update };
}

function etaFigure(endpoint) {
  const words = etaWords(endpoint);
  const isDraining = words.startsWith("empty");
  return isDraining ? [duration(Math.max(1, Math.round(endpoint.etaSeconds))), ""] : ["–", words];
}

function showError(element, { lastError, lastErrorAt, state }, now) {
  element.hidden = lastError === null;
  if (lastError === null) return;
  const isPast = state !== "retrying" && state !== "stopped";
  const when = lastErrorAt === null ? "" : ` ${ago(Math.max(0, now - lastErrorAt))}`;
  setAttribute(element, "class", `endpoint-error${isPast ? " is-past" : ""}`);
  setText(element, `${isPast ? "Last error" : "Error"}${when}: ${lastError}`);
}

/** Shards now as filled pips of those there may be, with the number wanted. */
function shardGauge() {
  const pips = svg("svg", { class: "pips", height: 12, "aria-hidden": "true" });
  const text = h("span");
  const element = h("p", { class: "shards" }, pips, text);
  /** More than these are not drawn one by one. */
  const PIPS_MAX = 24;
  let shown = "";
  const update = ({ now, desired, min, max }) => {
    const key = `${now} ${desired} ${min} ${max}`;
    if (key === shown) return;
    shown = key;
    const number = Math.min(PIPS_MAX, Math.max(max, now));
    const step = number * 8;
    setAttribute(pips, "width", step);
    pips.replaceChildren(...Array.from({ length: number }, (_, at) => {
      const until = (shards) => Math.ceil((shards / Math.max(max, now)) * number);
      const kind = at < until(now) ? "is-on" : at < until(Math.round(desired)) ? "is-wanted" : "";
      return svg("rect", { x: at * 8 + 0.5, y: 1.5, width: 6, height: 9, rx: 1.5, class: `pip ${kind}` });
    }));
    const wish = Math.round(desired) === now ? "" : `, ${count(Math.round(desired * 10) / 10)} wanted`;
    setText(text, `${now} ${now === 1 ? "shard" : "shards"}${wish} (${min} to ${max})`);
  };
  return { element, update };
}
