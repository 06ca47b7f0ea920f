/** Workers that run already: how their addresses are written. */
import { UsageError } from "../errors.js";

const REMEDY = "give local, or grpc://HOST:PORT";

/**
 * "host:port" of what `--worker` says.
 *
 * @throws UsageError for anything but grpc://host:port
 */
export function parseAddress(text: string): string {
  if (/^grpcs:/i.test(text) || /^docker(:|$)/i.test(text))
    throw new UsageError(`--worker ${text}: TLS and containers are not supported yet`, REMEDY);
  const [, host, port] = /^grpc:\/\/([\w.-]+|\[[\da-f:.]+\]):(\d+)\/?$/i.exec(text) ?? [];
  if (host === undefined || !(Number(port) >= 1 && Number(port) <= 65535))
    throw new UsageError(`--worker ${text}: this is no address of a worker`, REMEDY);
  return `${host}:${Number(port)}`;
}

/** A ZeroMQ endpoint as it is reached from here: a worker that listens on all interfaces is reached where its gRPC server is. */
export function reachableEndpoint(endpoint: string, address: string): string {
  const host = address.slice(0, address.lastIndexOf(":"));
  return endpoint.replace(/^tcp:\/\/(\*|0\.0\.0\.0|\[::\]):/, `tcp://${host}:`);
}
