export {
  type Access,
  type CallOptions,
  isFinal,
  isLoopback,
  type Method,
  onAbort,
  Rpc,
  type RpcOptions,
} from "./client.js";
export {
  type Address,
  errorFromStatus,
  explainRpc,
  isConnectionLoss,
  STATUS_KEY,
} from "./errors.js";
