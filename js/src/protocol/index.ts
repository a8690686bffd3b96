// The messages between this screen and Python. Types come from protocol.py; see ../../protocol.mjs.
import type { Told } from "./generated";

export type * from "./generated";

/** The version of the wire that this screen speaks. */
export const WIRE: Told["v"] = 1;
