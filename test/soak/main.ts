/**
 * `npm run soak`: faults and hostile input that take too long for the tests. Ends with 1 when
 * something does not hold.
 */
import {
  measureParts,
  n,
  type Part,
  part,
  printTable,
  type Row,
  readArguments,
  refuse,
} from "../benchmark-parts.js";
import type { Guard } from "../workers.js";
import { type Crowd, measureCrowd, measureUnclosed, type Unclosed } from "./crowd.js";
import { measureDashboard } from "./dashboard.js";
import { type Fault, faultRows, measureFaults } from "./faults.js";
import { measureFiles } from "./files.js";
import { measureFuzz } from "./fuzz.js";
import { measureOutages, type Outage } from "./network.js";

const USAGE = `
Usage: npm run soak -- [options]

Faults and hostile input that take too long for the tests

Options:
  --only PART,PART    Do some parts; a name that is none lists them
  --faults KIND,KIND  Which faults: killed, damaged, full, slow, clock (default: all)
  --long              Wait for what takes minutes, up to an hour: a network cut for as long as it
                      takes to give up, the end of a lease, a dashboard that stays open
  --cut SECONDS       How long a network is cut (default: 5)
  --clients N         Clients at a time (default: 100)
  --cases N           Hostile inputs (default: 100000)
  --seed N            Seed of these (default: 1)
  --json              Print all that was found`;

const { values } = readArguments(USAGE, {
  options: {
    json: { type: "boolean", default: false },
    only: { type: "string" },
    long: { type: "boolean", default: false },
    cut: { type: "string", default: "5" },
    clients: { type: "string", default: "100" },
    cases: { type: "string", default: "100000" },
    seed: { type: "string", default: "1" },
    faults: { type: "string" },
  },
});
const [cut, clients, cases, seed] = [
  positive("cut"),
  positive("clients"),
  positive("cases"),
  positive("seed"),
];
const LONG_SECONDS = 300;

const counted = (tally: Record<string, number>) =>
  Object.entries(tally)
    .toSorted(([, a], [, b]) => b - a)
    .map(([how, count]) => `${n(count)} ${how}`)
    .join(", ");

const fuzz = (guard: Guard): Part => {
  return async () => {
    const found = await measureFuzz(cases, seed, guard);
    const { calls, frames, connections, faults, seconds, memory, files } = found;
    if (Object.keys(faults).length > 0) process.exitCode = 1;
    const rows: Row[] = [
      [
        `${n(cases)} spoilt messages, ${n(connections)} connections of noise, ${guard}`,
        `${n(cases / seconds)} a second`,
        [
          `calls: ${counted(calls)}; frames: ${counted(frames)};`,
          ` worker's memory in MiB: ${memory.map((mib) => n(mib)).join(", ")};`,
          ` open files: ${files.join(" and ")}`,
        ].join(""),
      ],
      ...Object.entries(faults).map(
        ([what, request]): Row => ["", "fault", `${what} (${request})`],
      ),
    ];
    return { found, rows };
  };
};

const files: Part = async () => {
  const found = await measureFiles(cases, seed);
  if (found.some((format) => Object.keys(format.faults).length > 0)) process.exitCode = 1;
  const rows = found.flatMap(
    ({ format, total, same, refused, crashes, faults, seconds, peakMiB }) => [
      [
        `${n(total)} mutated files: ${format}`,
        `${n(seconds)} s`,
        [
          `${n(same)} as its own library reads them, ${n(refused)} refused in words`,
          crashes > 0 ? `, ${n(crashes)} crash or hang its own library too` : "",
          `; memory at most ${n(peakMiB)} MiB`,
        ].join(""),
      ] as Row,
      ...Object.entries(faults).map(([what, at]): Row => ["", "fault", `${what} (seed ${at})`]),
    ],
  );
  return { found, rows };
};

const PARTS: Record<string, Part> = {
  files,
  network: part(
    () =>
      measureOutages([
        { how: "silent", seconds: cut },
        { how: "reset", seconds: cut },
        ...(values.long ? [{ how: "silent" as const, seconds: LONG_SECONDS }] : []),
      ]),
    (outages: Outage[]): Row[] =>
      outages.map(({ how, seconds, gaveUpAfter, backAfter, epochs }) => [
        `network cut for ${n(seconds)} s (${how}) during a run`,
        `${n(backAfter)} s`,
        `nothing: each of ${epochs} epochs logged once (${
          gaveUpAfter === undefined
            ? "by itself"
            : `atlas attach, as it said after ${n(gaveUpAfter)} s`
        })`,
      ]),
  ),
  faults: async () => {
    const found: Fault[] = await measureFaults(values.faults?.split(","));
    if (found.some(({ failed }) => failed)) process.exitCode = 1;
    return { found, rows: faultRows(found) };
  },
  many: part(
    () => measureCrowd(clients),
    (d: Crowd): Row[] => [
      [
        `${d.clients} clients at once, a session and a small job each`,
        `${n(d.seconds)} s`,
        [
          `${d.served} served (p50 ${n(d.servedTimes.p50)} ms, p99 ${n(d.servedTimes.p99)} ms),`,
          ` ${d.refused} refused in words (p50 ${n(d.refusedTimes.p50)} ms,`,
          ` p99 ${n(d.refusedTimes.p99)} ms); all well afterwards`,
        ].join(""),
      ],
    ],
  ),
  unclosed: part(
    () => measureUnclosed(clients, values.long),
    (d: Unclosed): Row[] => [
      [
        `${d.asked} sessions asked for, none closed`,
        `${d.opened} opened`,
        d.roomAfter === undefined
          ? d.said
          : `${d.said}; room again after ${n(d.roomAfter)} s (lease: ${n(d.leaseSeconds)} s)`,
      ],
    ],
  ),
  fuzz: fuzz("plain"),
  "fuzz-tls": fuzz("encrypted"),
  dashboard: async () => {
    const found = await measureDashboard(values.long ? 3600 : 240);
    const { events, seconds, serverMiB, pageMiB = [], faults } = found;
    if (faults.length > 0) process.exitCode = 1;
    const row: Row = [
      `dashboard of 2,000 runs, ${n(events)} events in ${n(seconds)} s`,
      faults.length === 0 ? "flat" : faults.join(", "),
      `server ${serverMiB.map((mib) => n(mib)).join(", ")} MiB; ` +
        `page ${pageMiB.map((mib) => n(mib)).join(", ") || "not looked at"} MiB`,
    ];
    return { found, rows: [row] };
  },
};

/** The number that a flag gives; one that is none ends the program with 2. */
function positive(name: "cut" | "clients" | "cases" | "seed"): number {
  const number = Number(values[name]);
  if (number > 0) return number;
  return refuse(`--${name} ${values[name]} is not a number above 0`);
}

const { found, rows } = await measureParts("soak", PARTS, values.only);
if (values.json) process.stdout.write(`${JSON.stringify(found, null, 2)}\n`);
else printTable(rows);
process.exit();
