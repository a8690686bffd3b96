-- A text that a spreadsheet would calculate is led by an apostrophe.
CREATE MACRO harmless(words) AS if(regexp_matches(words, '^[=+\-@\t\r\n]'), '''' || words, words);
