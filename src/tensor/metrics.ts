/**
 * Live metrics: measurements of a job's steps, as they happen. Some may be lost. The events of
 * `watchJob` are complete.
 */
import { Subscriber } from "zeromq";
import { StepMetrics } from "../gen/atlas/v1/tensor.js";
import type { CurveKeys } from "../gen/atlas/v1/worker.js";
import { curveOptions } from "./plane.js";

/** A connection to a worker's live metrics. */
export class MetricsFeed {
  private readonly socket: Subscriber;
  private readonly listeners = new Map<string, (metrics: StepMetrics) => void>();

  /**
   * @param endpoint ZeroMQ endpoint of the worker's PUB socket, from Describe
   * @param curve keys of an encrypted socket, from Describe
   */
  constructor(endpoint: string, curve?: CurveKeys) {
    this.socket = new Subscriber({
      linger: 0,
      receiveHighWaterMark: 100,
      ipv6: endpoint.includes("["),
      ...curveOptions(curve),
    });
    this.socket.connect(endpoint);
    void this.receive();
  }

  /** Listen to the steps of a job. @returns stops listening */
  subscribe(jobId: string, listener: (metrics: StepMetrics) => void): () => void {
    this.listeners.set(jobId, listener);
    this.socket.subscribe(jobId);
    return () => {
      if (this.listeners.delete(jobId) && !this.socket.closed) this.socket.unsubscribe(jobId);
    };
  }

  /** Close the connection. */
  close(): void {
    this.listeners.clear();
    if (!this.socket.closed) this.socket.close();
  }

  private async receive(): Promise<void> {
    try {
      for await (const [topic, message] of this.socket) {
        // A subscription matches a prefix: "job-1" also brings "job-10".
        const listener = topic && this.listeners.get(topic.toString());
        if (listener && message) listener(StepMetrics.decode(message));
      }
    } catch {
      // Live metrics are a convenience. A malformed message or a failed socket ends them only.
    }
  }
}
