/**
 * Turns the peers of the cluster into a table, or says that there is none.
 */

import { Changes } from "../announce.js";
import { h, setChildren } from "../dom.js";
import { badge, loading, notice, table } from "../parts/common.js";
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
  let shown = "";
  poll("peers", {
    signal,
    intervalMs: INTERVAL_MS,
    onNews(/** @type {import("../contract.js").Peer[]} */ peers) {
      for (const { name, state } of peers) changes.see(name, state);
      const key = JSON.stringify(peers);
      if (key === shown) return;
      shown = key;
      setChildren(body, peers.length === 0 ? off() : list(peers));
    },
    onRefused: (error) => setChildren(body, notice("warn", error.message)),
  });
}

function list(peers) {
  const rows = peers.map(({ name, addr, isSelf, state }) => {
    const mark = badge();
    mark.update(TONES[state] ?? "idle", state);
    return [h("span", {}, name, isSelf && h("span", { class: "pill" }, "this one")), addr, mark.element, MEANINGS[state] ?? ""];
  });
  const columns = ["name", "address", "state", "meaning"].map((title) => ({ title }));
  return h("div", { class: "card flush" }, table("Peers of the cluster", columns, rows));
}

function off() {
  return notice("idle", h("p", {}, "Clustering is off: this agent works alone."));
}
