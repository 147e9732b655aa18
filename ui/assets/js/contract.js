/**
 * Turns the agent's JSON into types that editors know; there is no code in here.
 *
 * Positions and byte counts are bytes, times are seconds; a health's time is RFC 3339.
 *
 * @typedef {"unknown"|"healthy"|"unhealthy"|"exited"} HealthState
 * @typedef {{state: HealthState, message: string, updatedTime: string}} Health
 *
 * @typedef {object} Summary
 * @property {string} name
 * @property {string} localID
 * @property {string} moduleID  "" at the root
 * @property {string} label
 * @property {string[]} referencesTo
 * @property {string[]} referencedBy
 * @property {string[]} dataFlowEdgesTo
 * @property {Health} health
 * @property {boolean} liveDebuggingEnabled
 *
 * @typedef {{type: string, value: any}} Value  an object's value is a list of {key, value}
 * @typedef {{name: string, type: "attr", value: Value}} Attribute
 * @typedef {{name: string, type: "block", label?: string, body: Statement[]}} Block
 * @typedef {Attribute | Block} Statement
 * @typedef {Summary & {arguments: Statement[], exports: Statement[], debugInfo: Statement[],
 *   createdModuleIDs: string[]}} Detail
 *
 * @typedef {object} Agent
 * @property {string} version
 * @property {string} hostname
 * @property {number} uptimeSeconds
 * @property {boolean} ready
 * @property {string} ioEngine
 * @property {number} threads
 * @property {string} storagePath
 * @property {boolean} liveDebugging
 * @property {boolean} clustering
 * @property {{path: string, sha256: string, loadedAt: number|null, isLastLoadGood: boolean,
 *   error: string|null}} config
 *
 * @typedef {{id: number|string, from: number, to: number, state: "full"|"current"|"prepared"}} Segment
 * @typedef {{reason: string, records: number}} Dropped
 *
 * @typedef {object} Endpoint
 * @property {string} name
 * @property {string} url  without secrets
 * @property {number} acked
 * @property {number} saved
 * @property {"delivering"|"idle"|"retrying"|"draining"|"stopped"} state
 * @property {number} lagBytes
 * @property {number|null} lagSeconds
 * @property {number|null} etaSeconds  null: no end in sight, or nothing to drain
 * @property {number} samplesPerSecond
 * @property {{now: number, desired: number, min: number, max: number}} shards
 * @property {number} inFlight
 * @property {string|null} lastError
 * @property {number|null} lastErrorAt
 * @property {{in: number, delivered: number, pending: number, dropped: Dropped[]}} records
 * @property {{files: number, bytes: number}} rejected
 *
 * @typedef {object} Writer
 * @property {string} id
 * @property {string} dir
 * @property {number} series
 * @property {number} diskBytes
 * @property {number|null} diskBytesMax
 * @property {number} segmentBytes
 * @property {{appended: number, durable: number, reclaimed: number}} positions
 * @property {Segment[]} segments  oldest first
 * @property {number} [segmentsLeftOut]
 * @property {boolean} isOutOfSpace
 * @property {string|null} stalled
 * @property {string|null} failed
 * @property {{reason: string, bytes: number}[]} lost
 * @property {number} samplesPerSecond
 * @property {number} bytesPerSecond
 * @property {Endpoint[]} endpoints
 *
 * @typedef {{now: number, writers: Writer[]}} Reservoir
 *
 * @typedef {{id: string, kind: "receiver"|"writer"|"endpoint", endpoint: string|null,
 *   metric: string, values: (number|null)[]}} HistorySeries
 * @typedef {{stepSeconds: number, from: number, series: HistorySeries[]}} History
 *
 * @typedef {{componentID: string, targetComponentIDs: string[], type: string, rate: number}} Edge
 * @typedef {{name: string, addr: string, isSelf: boolean, state: string}} Peer
 * @typedef {{name: string, isReady: boolean, minimumSize: number, shares: {name: string, share: number}[]}} Cluster
 *
 * @typedef {object} Cardinality
 * @property {number} series
 * @property {number} takenAt
 * @property {{name: string, series: number}[]} metrics
 * @property {{name: string, values: number, series: number}[]} labels
 * @property {{name: string, value: string, series: number}[]} pairs
 * @property {boolean} isApproximate
 *
 * @typedef {{endpoint: string, at: number, status: number|null, reason: string, records: number,
 *   text: string}} Rejected
 * @typedef {{tenant: string, activeSeries: number, limit: number|null, samplesPerSecond?: number,
 *   refused: number, top: {label: string, value: string, refused: number}[]}} Tenant
 * @typedef {{receiver: string, tenants: Tenant[]}} Tenants
 */
export {};
