SELECT i.indisvalid AS valid, i.indisready AS ready, i.indislive AS live
FROM pg_catalog.pg_index AS i
WHERE i.indexrelid = %(index)s
