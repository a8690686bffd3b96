// The queue of a page with a server, which also has the open requests that are older than those that it was told of.
import { useState } from "preact/hooks";
import { LISTED } from "../state";
import { ApprovalList, type Older, PAGE } from "./approvals";
import { useDeed, useDesk, usePlace } from "./desk";
import { Refused } from "./refused";

export function Waiting() {
  const [place] = usePlace();
  return <ApprovalList chosen={place.approval} older={useOlder()} />;
}

/** Reads page by page into the store, where what becomes of the requests arrives too. */
function useOlder(): Older {
  const { api, store } = useDesk();
  const [next, setNext] = useState<string | null>(null);
  const { running, refusal, start } = useDeed();
  const read = async () => {
    // the first page holds what the list told
    const from = next ?? (await api.approvals("", LISTED)).next;
    const page = from ? await api.approvals(from, PAGE) : { items: [], next: "" };
    setNext(page.next);
    store.learn(...page.items.map((approval) => ({ type: "approval:response", seq: 0, approval }) as const));
  };
  return { left: next !== "", running, read: () => start(read), notice: <Refused refusal={refusal} /> };
}
