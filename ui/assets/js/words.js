/**
 * Turns the numbers of a writer, an endpoint, a component into what one would say about them.
 *
 * A tone is a colour and a shape together (`icons.js`): "good", "busy", "warn", "bad", "idle".
 * Pure, so that what is said in an outage is tested without one.
 */

import { bytes, duration, rate } from "./format.js";

/** @typedef {"good"|"busy"|"warn"|"bad"|"idle"} Tone */
/** @typedef {{tone: Tone, title: string, text: string}} Words */

/** Less than this behind is what a batch takes anyhow. */
const KEEPS_UP_SECONDS = 5;
/** A disk this full deserves a look. */
const NEARLY_FULL = 0.85;

/**
 * @param {import("./contract.js").Endpoint} endpoint
 * @returns {Words}
 */
export function endpointWords(endpoint) {
  const behind = behindWords(endpoint);
  switch (endpoint.state) {
    case "stopped":
      return { tone: "bad", title: "Stopped", text: `nothing is being sent; ${behind}` };
    case "retrying":
      return { tone: "warn", title: "Retrying", text: `${behind}; what comes in is kept on disk` };
    case "draining":
      return { tone: "busy", title: "Draining", text: `${behind}; ${etaWords(endpoint)}` };
    case "idle":
      return { tone: "idle", title: "Idle", text: "it has everything there is" };
    default:
      if (endpoint.lagSeconds !== null && endpoint.lagSeconds > KEEPS_UP_SECONDS) {
        const isShrinking = endpoint.etaSeconds !== null;
        const [tone, title] = isShrinking ? ["busy", "Catching up"] : ["warn", "Behind"];
        return { tone, title, text: `${behind}; ${etaWords(endpoint)}` };
      }
      return { tone: "good", title: "Delivering", text: `keeps up, ${behind}` };
  }
}

/** "1.2 GiB behind (3 min 12 s)". */
export function behindWords({ lagBytes, lagSeconds }) {
  if (lagBytes === 0) return "nothing behind";
  const age = lagSeconds === null ? "" : ` (${duration(lagSeconds)})`;
  return `${bytes(lagBytes)} behind${age}`;
}

/** When an endpoint will have everything. */
export function etaWords({ etaSeconds, lagBytes, lagSeconds, state }) {
  if (lagBytes === 0) return "up to date";
  if (state === "delivering" && (lagSeconds ?? 0) <= KEEPS_UP_SECONDS) return "keeps up";
  if (etaSeconds !== null) return `empty in about ${duration(Math.max(1, Math.round(etaSeconds)))}`;
  if (state === "retrying" || state === "stopped") return "no end in sight while nothing gets through";
  if (state === "draining") return "no end in sight: more comes in than goes out";
  return "not shrinking";
}

/**
 * @param {import("./contract.js").Writer} writer
 * @returns {Words}
 */
export function writerWords(writer) {
  if (writer.failed) return { tone: "bad", title: "Failed", text: writer.failed };
  if (writer.stalled) return { tone: "bad", title: "Stalled", text: writer.stalled };
  if (writer.isOutOfSpace) {
    return { tone: "bad", title: "Out of space", text: "new data is refused with 503 until there is room" };
  }
  if (writer.lost.some(({ bytes: lost }) => lost > 0)) {
    return { tone: "warn", title: "Lost bytes", text: "part of the log could not be read any more" };
  }
  const share = writer.diskBytesMax === null ? 0 : writer.diskBytes / writer.diskBytesMax;
  if (share >= NEARLY_FULL) {
    return { tone: "warn", title: "Nearly full", text: "at the quota senders are refused with 503" };
  }
  return { tone: "good", title: "Taking data", text: rate(writer.samplesPerSecond) };
}

/**
 * The account of an endpoint. What does not add up is said, not hidden: `missing` is 0 where it does.
 *
 * @param {import("./contract.js").Endpoint["records"]} records
 */
export function account(records) {
  const dropped = records.dropped.reduce((sum, { records: count }) => sum + count, 0);
  const missing = records.in - records.delivered - records.pending - dropped;
  return { dropped, missing };
}

/** How soon a quota is reached at the rate at which the log grows: seconds, or null for never. */
export function secondsUntilFull(writer) {
  if (writer.diskBytesMax === null || writer.bytesPerSecond <= 0) return null;
  const isHeld = writer.endpoints.some(({ state }) => state === "retrying" || state === "stopped");
  if (!isHeld) return null;
  return Math.max(0, writer.diskBytesMax - writer.diskBytes) / writer.bytesPerSecond;
}

const REASONS = {
  refused: "refused by the endpoint",
  unknown_series: "labels no longer readable",
  nhcb_in_rw1_not_supported: "custom buckets, which remote write 1.0 cannot carry",
  switched_off: "kind switched off for this endpoint",
  too_large: "larger than a request may be",
  corrupt_frame: "corrupt in the log",
  missing_segment: "segment missing",
  unreadable: "not readable from the device",
  torn: "torn by a crash before it was acknowledged",
  quota: "disk quota reached",
  max_lag_bytes: "behind by more than max_lag_bytes",
  max_lag_age: "behind by more than max_lag_age",
  dropped_series: "dropped by relabel rules",
  too_old: "older than sample_age_limit",
};
/** What the configuration asks for is no loss. */
const ASKED_FOR = new Set(["switched_off", "dropped_series"]);

/** Why a record did not reach an endpoint; a reason not known here stands for itself. */
export function reasonWords(reason) {
  const text = Object.hasOwn(REASONS, reason) ? REASONS[reason] : reason;
  return { text, isAskedFor: ASKED_FOR.has(reason) };
}

const HEALTH_TONES = { healthy: "good", unhealthy: "bad", exited: "warn", unknown: "idle" };

/** @returns {Tone} */
export function healthTone(state) {
  return HEALTH_TONES[state] ?? "idle";
}

/** The id of a component as the other endpoints know it. */
export function componentID({ moduleID, localID }) {
  return moduleID === "" ? localID : `${moduleID}/${localID}`;
}

/** The kind and the label of a component: "prometheus.relabel", "drop". */
export function splitID(localID, label) {
  const suffix = `.${label}`;
  const isLabelled = label !== "" && localID.endsWith(suffix);
  return isLabelled ? [localID.slice(0, -suffix.length), label] : [localID, ""];
}
