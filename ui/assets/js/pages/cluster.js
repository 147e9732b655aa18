/**
 * Turns the agents of the cluster into a table with how much each of them owns, or says that there is none.
 */

import { Changes } from "../announce.js";
import { h, setChildren } from "../dom.js";
import { badge, gauge, loading, notice, table } from "../parts/common.js";
import { poll } from "../poll.js";

const INTERVAL_MS = 2000;
const TONES = { participant: "good", viewer: "idle", terminating: "warn" };
const MEANINGS = {
  participant: "takes its share of the targets",
  viewer: "has joined and takes no targets yet",
  terminating: "is leaving",
};

/** @param {HTMLElement} place @param {string} _parameter @param {AbortSignal} signal */
export function show(place, _parameter, signal) {
  const body = h("div", { class: "stack" }, loading());
  place.append(h("h1", {}, "Cluster"), body);
  const changes = new Changes();
  /** @type {import("../contract.js").Peer[]} */
  let peers = [];
  /** @type {import("../contract.js").Cluster|null} */
  let cluster = null;
  let shown = "";
  const redraw = () => {
    const key = JSON.stringify([peers, cluster]);
    if (key === shown) return;
    shown = key;
    setChildren(body, ...(peers.length === 0 ? [off()] : [waiting(cluster), list(peers, cluster)]));
  };
  const onRefused = (error) => setChildren(body, notice("warn", error.message));
  poll("peers", {
    signal,
    intervalMs: INTERVAL_MS,
    onNews(/** @type {import("../contract.js").Peer[]} */ news) {
      for (const { name, state } of news) changes.see(name, state);
      peers = news.toSorted((a, b) => Number(b.isSelf) - Number(a.isSelf));
      redraw();
    },
    onRefused,
  });
  poll("cluster", {
    signal,
    intervalMs: INTERVAL_MS,
    onNews(/** @type {import("../contract.js").Cluster|null} */ news) {
      cluster = news;
      redraw();
    },
    onRefused,
  });
}

/** What is waited for, if anything is. */
function waiting(cluster) {
  if (cluster === null || cluster.isReady) return null;
  return notice("warn", h("p", {}, `Waiting for ${cluster.minimumSize} agents: no targets are taken before.`));
}

function list(peers, cluster) {
  const shares = new Map((cluster?.shares ?? []).map(({ name, share }) => [name, share]));
  const rows = peers.map(({ name, addr, isSelf, state }) => {
    const mark = badge();
    mark.update(TONES[state] ?? "idle", state);
    const share = gauge(`Share of ${name}`);
    const part = shares.get(name) ?? 0;
    share.update(part, `${(part * 100).toFixed(1)} %`);
    return [h("span", {}, name, isSelf && h("span", { class: "pill" }, "this one")), addr, mark.element, share.element, MEANINGS[state] ?? ""];
  });
  const columns = ["name", "address", "state", "share of all keys", "meaning"].map((title) => ({ title }));
  return h("div", { class: "card flush" }, table("Agents of the cluster", columns, rows));
}

function off() {
  return notice("idle", h("p", {}, "Clustering is off: this agent works alone."));
}
