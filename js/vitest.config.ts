import { defineConfig } from "vitest/config";

export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  test: {
    environment: "jsdom", // DOMPurify is only supported on jsdom, not on happy-dom
    include: ["src/**/*.test.{ts,tsx}", "tests/**/*.test.{ts,tsx}"],
    restoreMocks: true,
    testTimeout: 30_000, // build machines are small and shared
    sequence: { shuffle: true },
  },
});
