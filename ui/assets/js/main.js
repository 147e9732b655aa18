/**
 * Turns an address into a shown page, and the agent's state into the frame around it.
 *
 * A page is `show(place, parameter, signal)`: it fills its place and stops all it started when the
 * signal says that the reader has gone on.
 */

import { h, setAttribute, setChildren, setText } from "./dom.js";
import { duration } from "./format.js";
import { picture, toneIcon } from "./icons.js";
import { onConnection, poll } from "./poll.js";
import { link, parse } from "./router.js";
import { nextTheme, theme } from "./theme.js";
import * as overview from "./pages/overview.js";
import * as components from "./pages/components.js";
import * as reservoir from "./pages/reservoir.js";
import * as cardinality from "./pages/cardinality.js";
import * as debug from "./pages/debug.js";
import * as cluster from "./pages/cluster.js";

const PAGES = { overview, components, reservoir, cardinality, debug, cluster };
const TITLES = {
  overview: "Overview",
  components: "Components",
  reservoir: "Reservoir",
  cardinality: "Cardinality",
  debug: "Live debugging",
  cluster: "Cluster",
};
const AGENT_INTERVAL_MS = 5000;

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const nav = document.getElementById("nav");
const banner = document.getElementById("banner");
const state = document.getElementById("link-state");
const button = document.getElementById("theme");

let leave = new AbortController();
/** The first page takes no focus: the reader has not gone anywhere yet. */
let isFirst = true;

function navigate() {
  leave.abort();
  leave = new AbortController();
  const { page, parameter } = parse(location.hash);
  const place = h("div", { class: `page page-${page}` });
  main.replaceChildren(place);
  if (page in PAGES) PAGES[page].show(place, parameter, leave.signal);
  else place.append(h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: link("overview") }, "To the overview")));
  document.title = `${TITLES[page] ?? "Not found"}${parameter === "" ? "" : ` – ${parameter}`} – Penstock`;
  for (const anchor of nav.querySelectorAll("a")) {
    setAttribute(anchor, "aria-current", anchor.dataset.page === page ? "page" : null);
  }
  nav.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  window.scrollTo(0, 0);
  if (!isFirst) focusHeading(place);
  isFirst = false;
}

function focusHeading(place) {
  const heading = place.querySelector("h1");
  if (heading === null) return;
  heading.setAttribute("tabindex", "-1");
  heading.focus({ preventScroll: true });
}

function showNav() {
  const items = Object.entries(TITLES).map(([page, title]) =>
    h("li", {}, h("a", { href: link(page), "data-page": page }, picture(page), h("span", {}, title))),
  );
  nav.append(h("ul", {}, items));
}

function showTheme() {
  const [name, icon] = { auto: ["system", "auto"], light: ["light", "sun"], dark: ["dark", "moon"] }[theme()];
  setChildren(button, picture(icon, 16), h("span", { class: "button-text" }, `Theme: ${name}`));
  setAttribute(button, "title", `Theme: ${name}. Press to change.`);
}

function showConnection({ isLost, status, since }) {
  banner.hidden = !isLost;
  document.body.classList.toggle("is-stale", isLost);
  showLinkState();
  if (!isLost) return setChildren(banner);
  const time = new Date(since).toLocaleTimeString("en-GB");
  const text =
    status === null
      ? `Connection lost, trying again. What you see is of ${time}.`
      : `The agent wants credentials (${status}). Load the page again to give them.`;
  setChildren(banner, toneIcon("warn", 20), h("span", {}, text));
}

/** @type {import("./contract.js").Agent | null} */
let agent = null;

function showLinkState() {
  const isLost = !banner.hidden;
  const [tone, text] = isLost ? ["warn", "no connection"] : agent === null ? ["idle", "…"] : readiness(agent);
  if (state.dataset.text === text) return;
  state.dataset.text = text;
  setChildren(state, toneIcon(tone), h("span", {}, text));
}

function readiness(news) {
  if (!news.config.isLastLoadGood) return ["warn", "last load failed"];
  return news.ready ? ["good", "ready"] : ["busy", "starting"];
}

function showAgent(news) {
  agent = news;
  setText(document.getElementById("host"), news.hostname);
  setAttribute(state, "title", `version ${news.version}, up ${duration(news.uptimeSeconds)}`);
  showLinkState();
}

showNav();
showTheme();
button.addEventListener("click", () => {
  nextTheme();
  showTheme();
});
// The fragment is the address of the page, so the link must not change it.
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener("hashchange", navigate);
onConnection(showConnection);
navigate();
poll("agent", { signal: new AbortController().signal, intervalMs: AGENT_INTERVAL_MS, onNews: showAgent });
