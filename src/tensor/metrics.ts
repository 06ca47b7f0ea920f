/** The live-metrics plane: what each step of a job measured, as it happens. Some may be dropped; what must not be lost is on WatchJob. */
import { Subscriber } from "zeromq";
import { StepMetrics } from "../gen/atlas/v1/tensor.js";
import type { CurveKeys } from "../gen/atlas/v1/worker.js";
import { curveOptions } from "./plane.js";

export class MetricsFeed {
  private readonly socket: Subscriber;
  private readonly listeners = new Map<string, (metrics: StepMetrics) => void>();

  /**
   * @param endpoint ZeroMQ endpoint of the worker's PUB socket, as Describe gives it
   * @param curve keys of an encrypted plane, as Describe gives them
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

  /** Listen to one job's steps. @returns stops listening */
  subscribe(jobId: string, listener: (metrics: StepMetrics) => void): () => void {
    this.listeners.set(jobId, listener);
    this.socket.subscribe(jobId);
    return () => {
      if (this.listeners.delete(jobId) && !this.socket.closed) this.socket.unsubscribe(jobId);
    };
  }

  close(): void {
    this.listeners.clear();
    if (!this.socket.closed) this.socket.close();
  }

  private async receive(): Promise<void> {
    try {
      for await (const [topic, message] of this.socket) {
        // A subscription is to a prefix: "job-1" brings "job-10" too.
        const listener = topic && this.listeners.get(topic.toString());
        if (listener && message) listener(StepMetrics.decode(message));
      }
    } catch {
      // Live metrics are a convenience: a malformed message, or a socket that fails, ends them and nothing else.
    }
  }
}
