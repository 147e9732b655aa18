/**
 * Turns the list of components into a table to filter; with an id, into that component's page.
 */

import { Changes } from "../announce.js";
import { h, keyed, setAttribute, setText } from "../dom.js";
import { badge, loading } from "../parts/common.js";
import { poll } from "../poll.js";
import { link } from "../router.js";
import { componentID, healthTone } from "../words.js";
import { showComponent } from "./component.js";

const INTERVAL_MS = 1000;
const STATES = ["unhealthy", "exited", "unknown", "healthy"];

/** @param {HTMLElement} place @param {string} id @param {AbortSignal} signal */
export function show(place, id, signal) {
  if (id !== "") return showComponent(place, id, signal);
  const text = h("input", { type: "search", id: "filter", placeholder: "prometheus.relabel", autocomplete: "off", spellcheck: "false" });
  const health = h("select", { id: "health" }, h("option", { value: "" }, "any"), STATES.map((state) => h("option", { value: state }, state)));
  const shown = h("p", { class: "muted", role: "status" });
  const { element: list, body } = listTable();
  const wait = loading();
  place.append(
    h("h1", {}, "Components"),
    h(
      "form",
      { class: "tools", role: "search", on: { submit: (event) => event.preventDefault() } },
      h("label", { for: "filter" }, "Filter ", text),
      h("label", { for: "health" }, "Health ", health),
      shown,
    ),
    wait,
    list,
  );
  list.hidden = true;
  /** @type {import("../contract.js").Summary[]} */
  let all = [];
  const changes = new Changes();

  const draw = () => {
    const found = all.filter((component) => matches(component, text.value, health.value));
    setText(shown, found.length === all.length ? `${all.length} components` : `${found.length} of ${all.length} components`);
    keyed(body, sorted(found), componentID, row);
  };
  text.addEventListener("input", draw);
  health.addEventListener("change", draw);
  poll("components", {
    signal,
    intervalMs: INTERVAL_MS,
    onNews(news) {
      all = news;
      wait.hidden = true;
      list.hidden = false;
      for (const component of news) changes.see(component.localID, component.health.state);
      draw();
    },
  });
}

/** Whether each word of the filter is in the id or the message. */
export function matches(component, filter, state) {
  if (state !== "" && component.health.state !== state) return false;
  const text = `${componentID(component)} ${component.health.message}`.toLowerCase();
  return filter.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

/** Who is not well first. */
export function sorted(components) {
  const weight = ({ health }) => STATES.indexOf(health.state);
  return [...components].sort((one, other) => weight(one) - weight(other) || componentID(one).localeCompare(componentID(other)));
}

function listTable() {
  const titles = ["Component", "Health", "Message", "Sends to", "Debugging"];
  const body = h("tbody");
  const head = h("tr", {}, titles.map((title) => h("th", { scope: "col" }, title)));
  const table = h("table", { class: "list" }, h("caption", { class: "unseen" }, "Components, those that are not healthy first"), h("thead", {}, head), body);
  return { element: h("div", { class: "card flush" }, table), body };
}

function row(first) {
  const health = badge();
  const message = h("td", { class: "message" });
  const targets = h("td", { class: "targets" });
  const debug = h("td");
  const id = componentID(first);
  const element = h(
    "tr",
    { "data-component": id },
    h("th", { scope: "row" }, h("a", { href: link("components", id) }, id)),
    h("td", {}, health.element),
    message,
    targets,
    debug,
  );
  const update = (component) => {
    health.update(healthTone(component.health.state), component.health.state);
    setText(message, component.health.message);
    setText(targets, component.dataFlowEdgesTo.join(", ") || "–");
    targets.classList.toggle("is-none", component.dataFlowEdgesTo.length === 0);
    setAttribute(targets, "title", component.dataFlowEdgesTo.join(", "));
    const isOn = component.liveDebuggingEnabled;
    if (debug.dataset.on === String(isOn)) return;
    debug.dataset.on = String(isOn);
    debug.replaceChildren(isOn ? h("a", { href: link("debug", id), "aria-label": `live debugging of ${id}` }, "live") : "–");
  };
  return { element, update };
}
