-- marketflow: no transaction
-- A column's type cannot be changed while a table has a columnstore: its chunks become rows again,
-- and 0012 turns them back.

CALL remove_columnstore_policy('store.book_events', if_exists => true);

CALL remove_columnstore_policy('store.trades', if_exists => true);

CALL remove_columnstore_policy('store.quotes', if_exists => true);

CALL remove_columnstore_policy('store.depth', if_exists => true);

CALL remove_columnstore_policy('store.bars', if_exists => true);

SELECT decompress_chunk(chunk, if_compressed => true) FROM show_chunks('store.book_events') chunk;

SELECT decompress_chunk(chunk, if_compressed => true) FROM show_chunks('store.trades') chunk;

SELECT decompress_chunk(chunk, if_compressed => true) FROM show_chunks('store.quotes') chunk;

SELECT decompress_chunk(chunk, if_compressed => true) FROM show_chunks('store.depth') chunk;

SELECT decompress_chunk(chunk, if_compressed => true) FROM show_chunks('store.bars') chunk;

ALTER TABLE store.book_events SET (timescaledb.enable_columnstore = false);

ALTER TABLE store.trades SET (timescaledb.enable_columnstore = false);

ALTER TABLE store.quotes SET (timescaledb.enable_columnstore = false);

ALTER TABLE store.depth SET (timescaledb.enable_columnstore = false);

ALTER TABLE store.bars SET (timescaledb.enable_columnstore = false);
