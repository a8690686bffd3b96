// Text that a person decides on, cut into pieces so that nothing in it can hide, reorder or pass for something else.

export type Mark = "plain" | "keyword" | "foreign" | "lookalike" | "hidden";

export interface Piece {
  /** What stands on the screen. */
  shown: string;
  /** What stands in the text; equal to ``shown`` unless the character is hidden. */
  source: string;
  mark: Mark;
  /** The code of a marked character, for example U+202E. */
  code: string;
}

/** Everything that draws nothing, draws a space, or changes the order of what is drawn; line feed and tab are layout. */
const HIDDEN = /^[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]$/u;
const LAYOUT = " \n\t";

/** What needs no second look: most of what is shown. */
const PLAIN = /^[\n\t -~]+$/;

/** Letters of other scripts that stand for an ASCII letter in most fonts. */
const LOOKALIKES = new Set(
  "аіјеорсухѕԁһԛԝӏАВЕКМНОРСТУХЅІЈԌԚԜӀ" + // Cyrillic
    "αινορυχϲϳΑΒΕΖΗΙΚΜΝΟΡΤΥΧ" + // Greek
    "օսոհցզցյԼՍՏՕ" + // Armenian
    "ᎪᏴᏟᎠᎬᏀᎻᎥᎫᏦᏞᎷᏢᎡᏚᎢᏙᎳᏃ" + // Cherokee
    "ıɑɡɩʏɪʀʟⅼ", // Latin that is not ASCII
);

/** Signs that stand for an ASCII sign in most fonts: a deception within a statement, good typography elsewhere. */
const SIGNS = new Set("‘’‚‛“”„‟′″‵ʹʼˈ´‐‑‒–—―−⁃∕⁄╱∗⁎٭∙·․‥…‚٫׃∶ꓽǃ");

const WORD = /[\p{L}\p{N}\p{M}_$]+/gu;
const SQL = /'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|\b[A-Z]{2,}\b/g;

/** Cuts a text into pieces; joined, their sources are the text. ``sql``: it is a statement, in which signs matter. */
export function pieces(text: string, sql = false): Piece[] {
  if (!sql && PLAIN.test(text)) return [{ shown: text, source: text, mark: "plain", code: "" }];
  const marks = sql ? keywords(text) : new Set<number>();
  const doubtful = wordsInDoubt(text);
  const found: Piece[] = [];
  let at = 0;
  for (const character of text) {
    const mark = marks.has(at) ? "keyword" : markOf(character, doubtful.has(at), sql);
    const last = found.at(-1);
    if (last && last.mark === mark && (mark === "plain" || mark === "keyword")) {
      last.shown += character;
      last.source += character;
    } else {
      found.push(piece(character, mark));
    }
    at += character.length;
  }
  return found;
}

function piece(character: string, mark: Mark): Piece {
  const code = `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;
  const marked = mark !== "plain" && mark !== "keyword";
  return { shown: mark === "hidden" ? `⟨${code}⟩` : character, source: character, mark, code: marked ? code : "" };
}

function markOf(character: string, doubtful: boolean, sql: boolean): Mark {
  if (LAYOUT.includes(character)) return "plain";
  if (HIDDEN.test(character)) return "hidden";
  if (character <= "~") return "plain";
  if (doubtful || /\p{Script=Inherited}/u.test(character)) return "lookalike";
  if (!sql && !/[\p{L}\p{N}]/u.test(character)) return "plain"; // the dashes and dots of a sentence
  return SIGNS.has(character) || foldsToAscii(character) ? "lookalike" : "foreign";
}

/** Full-width letters, mathematical ones, ligatures and the like. */
function foldsToAscii(character: string): boolean {
  const folded = character.normalize("NFKC");
  return folded !== character && /^[ -~]+$/.test(folded);
}

/**
 * The positions of letters that may deceive: those of another script in a word that also has ASCII letters, and those of
 * a word that could be read as ASCII from end to end. A plain word of another script is none.
 */
function wordsInDoubt(text: string): Set<number> {
  const found = new Set<number>();
  for (const match of text.matchAll(WORD)) {
    const letters = [...match[0]].filter((letter) => letter > "~");
    const mixed = /[A-Za-z]/.test(match[0]);
    if (!letters.length || !(mixed || letters.every((letter) => LOOKALIKES.has(letter)))) continue;
    let at = match.index;
    for (const letter of match[0]) {
      if (letter > "~" && (LOOKALIKES.has(letter) || !/\p{Script=Latin}/u.test(letter))) found.add(at);
      at += letter.length;
    }
  }
  return found;
}

function keywords(text: string): Set<number> {
  const found = new Set<number>();
  for (const match of text.matchAll(SQL)) {
    if (/^[A-Z]/.test(match[0])) for (let i = 0; i < match[0].length; i++) found.add(match.index + i);
  }
  return found;
}

/** Model text as it may be shown: what reorders or hides is written as its code; emoji joiners stay. */
export function unmasked(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\u2028\u2029\u3164\uFFA0\u115F\u1160]/gu, (character) =>
    character === "\n" || character === "\t" || character === "\u200d" ? character : piece(character, "hidden").shown,
  );
}

/** A text for a place that takes no elements, such as a toast: what hides in it appears as its code. */
export function visible(text: string): string {
  return pieces(text)
    .map((piece) => piece.shown)
    .join("");
}
