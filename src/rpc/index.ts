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
export { type Address, DETAIL_KEY, errorFromDetail, explainRpc, isConnectionLoss } from "./errors.js";
