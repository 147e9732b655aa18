/**
 * Turns an endpoint's account into a bar and a table: in = delivered + pending + dropped.
 *
 * Reasons are words of the agent. What does not add up gets a row of its own.
 */

import { h, setAttribute, setChildren } from "../dom.js";
import { exact, percent } from "../format.js";
import { account, reasonWords } from "../words.js";

/** A share that is there is seen, in percent of the bar. */
const SEEN_PERCENT_LEAST = 0.6;

export function ledger() {
  const bar = h("div", { class: "ledger-bar", "aria-hidden": "true" });
  const body = h("tbody");
  const verdict = h("p", { class: "ledger-verdict" });
  const element = h(
    "div",
    { class: "ledger" },
    bar,
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, "Account of all records this endpoint was to get, over all runs"),
      h("thead", { class: "unseen" }, h("tr", {}, ["what became of it", "records", "share"].map((title) => h("th", { scope: "col" }, title)))),
      body,
    ),
    verdict,
  );
  let shown = "";
  /** @param {import("../contract.js").Endpoint["records"]} records */
  const update = (records) => {
    const now = JSON.stringify(records);
    if (now === shown) return;
    shown = now;
    const { missing } = account(records);
    const parts = shares(records, missing);
    setChildren(bar, parts.filter(({ value }) => value > 0).map((part) => stretch(part, records.in)));
    setChildren(body, parts.map((part) => row(part, records.in)));
    setAttribute(verdict, "class", `ledger-verdict ${missing === 0 ? "tone-good" : "tone-warn"}`);
    setChildren(verdict, verdictText(records, missing));
  };
  return { element, update };
}

function shares(records, missing) {
  const dropped = records.dropped.map(({ reason, records: value }) => {
    const { text, isAskedFor } = reasonWords(reason);
    return { kind: isAskedFor ? "unwanted" : "dropped", name: text, title: `dropped: ${reason}`, value };
  });
  const rest = missing === 0 ? [] : [{ kind: "missing", name: "not accounted for", value: missing }];
  return [
    { kind: "delivered", name: "delivered", value: records.delivered },
    { kind: "pending", name: "pending", value: records.pending },
    ...dropped,
    ...rest,
  ];
}

function stretch({ kind, value }, all) {
  const part = h("span", { class: `ledger-part is-${kind}` });
  part.style.setProperty("flex-grow", String(Math.max(SEEN_PERCENT_LEAST, (Math.abs(value) / Math.max(1, all)) * 100)));
  return part;
}

function row({ kind, name, title, value }, all) {
  const key = h("span", { class: `ledger-key is-${kind}`, "aria-hidden": "true" });
  const share = all > 0 ? percent(value / all) : "–";
  return h("tr", {}, h("th", { scope: "row", title }, key, name), h("td", { class: "number" }, exact(value)), h("td", { class: "number muted" }, share));
}

function verdictText(records, missing) {
  const all = `${exact(records.in)} taken in`;
  return missing === 0 ? `${all}: it adds up` : `${all}: ${exact(missing)} not accounted for`;
}
