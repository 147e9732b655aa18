/**
 * Turns one writer into a card: its disk, the picture of its log, its endpoints, its last hour.
 */

import { Changes } from "../announce.js";
import { lineChart } from "../chart/line.js";
import { h, keyed, setAttribute, setText } from "../dom.js";
import { byteRate, bytes, count, duration, exact, percent, rate } from "../format.js";
import { logPicture } from "../log/picture.js";
import { link } from "../router.js";
import { secondsUntilFull, writerWords } from "../words.js";
import { badge, figure, figures, gauge } from "./common.js";
import { endpointPanel } from "./endpoint.js";

const changes = new Changes();

/**
 * @param {import("../contract.js").Writer} first
 * @param {AbortSignal} signal
 */
export function writerCard(first, signal) {
  const state = badge();
  const trouble = h("p", { class: "trouble", hidden: true });
  const input = figure("Comes in");
  const series = figure("Active series");
  const kept = figure("On disk");
  const quota = gauge("Disk quota used");
  const quotaBox = h("div", { class: "quota" }, h("p", { class: "quota-name" }, "Disk quota"), quota.element);
  const picture = logPicture(signal);
  const panels = h("div", { class: "endpoints" });
  const charts = hourCharts(first.id, signal);
  const heading = `writer-${first.id}`;
  const element = h(
    "section",
    { class: "card writer", "aria-labelledby": heading, "data-writer": first.id },
    h(
      "header",
      { class: "writer-head" },
      h("div", {}, h("h2", { id: heading }, h("a", { href: link("components", first.id) }, first.id)), h("p", { class: "address" }, first.dir)),
      state.element,
    ),
    trouble,
    h("div", { class: "writer-top" }, figures(input, series, kept), quotaBox),
    picture.element,
    panels,
    charts.element,
  );

  let now = 0;
  /** @param {import("../contract.js").Writer} writer */
  function update(writer) {
    const { tone, title, text } = writerWords(writer);
    state.update(tone, title);
    changes.see(writer.id, title);
    trouble.hidden = tone === "good";
    setAttribute(trouble, "class", `trouble tone-${tone}`);
    setText(trouble, `${text}${lost(writer)}`);
    input.update(rate(writer.samplesPerSecond), byteRate(writer.bytesPerSecond));
    series.update(count(writer.series), "", exact(writer.series));
    kept.update(bytes(writer.diskBytes), `segments of ${bytes(writer.segmentBytes)}`, exact(writer.diskBytes));
    showQuota(quota, writer);
    picture.show(writer);
    keyed(panels, writer.endpoints, ({ name }) => name, (endpoint) => {
      const panel = endpointPanel(endpoint, writer.id, signal);
      return { element: panel.element, update: (news) => panel.update(news, now) };
    });
  }
  return {
    element,
    update(writer, time) {
      now = time;
      update(writer);
    },
    showHistory: charts.show,
  };
}

function lost(writer) {
  const parts = writer.lost.filter(({ bytes: size }) => size > 0);
  return parts.length === 0 ? "" : ` (${parts.map(({ reason, bytes: size }) => `${reason}: ${bytes(size)}`).join(", ")})`;
}

function showQuota(quota, writer) {
  if (writer.diskBytesMax === null) return quota.update(0, "none: it may fill the disk", "idle");
  const share = writer.diskBytes / writer.diskBytesMax;
  const until = secondsUntilFull(writer);
  const soon = until === null ? "" : `, full in about ${duration(Math.round(until))} at this rate`;
  const tone = writer.isOutOfSpace || share >= 0.98 ? "bad" : share >= 0.85 ? "warn" : "good";
  quota.update(share, `${percent(share)} of ${bytes(writer.diskBytesMax)}${soon}`, tone);
}

/** The last hour of a writer and its endpoints. */
function hourCharts(id, signal) {
  const flow = lineChart({ title: "Samples per second", format: rate, signal });
  const lag = lineChart({ title: "Lag", format: bytes, base: 2, signal });
  const age = lineChart({ title: "Oldest waiting", format: duration, base: 60, signal });
  const element = h("div", { class: "charts" }, flow.element, lag.element, age.element);
  /** @param {import("../contract.js").History} history */
  function show(history) {
    const ours = history.series.filter((series) => series.id === id);
    const of = (metric, kind) => ours.filter((series) => series.metric === metric && series.kind === kind);
    const named = (series) => series.map(({ endpoint, values }) => ({ label: endpoint ?? "in", values }));
    const base = { from: history.from, stepSeconds: history.stepSeconds };
    flow.show({ ...base, lines: named([...of("samplesPerSecond", "writer"), ...of("samplesPerSecond", "endpoint")]) });
    lag.show({ ...base, lines: named(of("lagBytes", "endpoint")) });
    age.show({ ...base, lines: named(of("lagSeconds", "endpoint")) });
  }
  return { element, show };
}
