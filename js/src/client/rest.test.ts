// What is asked of the server, and by which path.
import { describe, expect, test } from "vitest";
import { createApi, type Method, withQuery } from "./rest";

const noFile = () => Promise.reject(new Error("no file was expected"));

function asked(...answers: unknown[]) {
  const requests: [Method, string, unknown][] = [];
  const api = createApi(async (method, path, body) => {
    requests.push([method, path, body]);
    return answers.shift() ?? { items: [], next: "" };
  }, noFile);
  return { api, requests };
}

const instance = {
  id: "a/b",
  name: "shop",
  server: "prod 1",
  plugin: "postgresql",
  environment: "staging",
  read_only: false,
  settings: {},
  created_by: "",
  created_at: "",
} as const;

describe("the REST interface", () => {
  test("escapes names in paths", async () => {
    const { api, requests } = asked({}, {});
    await api.health(instance);
    await api.detach(instance);
    expect(requests).toEqual([
      ["GET", "servers/prod%201/plugins/a%2Fb/health", undefined],
      ["DELETE", "servers/prod%201/plugins/a%2Fb", undefined],
    ]);
  });

  test("reads all pages of the servers", async () => {
    const page = (name: string, next: string) => ({ items: [{ name, plugins: [], health: [] }], next });
    const { api, requests } = asked(page("a", "c1"), page("b", ""));
    expect((await api.servers()).map((server) => server.name)).toEqual(["a", "b"]);
    expect(requests[1]?.[1]).toBe("servers?limit=200&cursor=c1");
  });

  test("stops reading a list that never ends", async () => {
    let count = 0;
    const api = createApi(async () => {
      count += 1;
      return { items: [], next: "again" };
    }, noFile);
    await api.servers();
    expect(count).toBe(50);
  });

  test("exports what the filters say as the kind of file that is wanted", async () => {
    const paths: string[] = [];
    const api = createApi(noFile, async (path) => {
      paths.push(path);
      return { content: new Blob(["x"]), rows: 1, cut: false };
    });
    await api.export({ risk: "high", search: "a&b", server: "" }, "parquet");
    expect(paths).toEqual(["audit/export?risk=high&search=a%26b&format=parquet"]);
  });

  test("filters the audit by what is given only", async () => {
    const { api, requests } = asked();
    await api.audit({ risk: "high", server: "", tool: "postgresql.vacuum_table" }, "", 200);
    expect(requests[0]?.[1]).toBe("audit?risk=high&tool=postgresql.vacuum_table&limit=200");
    expect(withQuery("audit", {})).toBe("audit");
  });
});
