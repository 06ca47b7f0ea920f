/** The dashboard: a live page of all runs. */
export { type Dashboard, type DashboardOptions, serveDashboard } from "./server.js";
