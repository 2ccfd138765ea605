-- marketflow: no transaction
-- Rows older than a day become columns, by symbol: about a fifth of the room, and late rows still
-- go in. Back-fills are best loaded with the sink's option direct_compress=1.

ALTER TABLE store.book_events SET (timescaledb.enable_columnstore, timescaledb.segmentby='symbol', timescaledb.orderby='ts_event, row_sequence');

CALL add_columnstore_policy('store.book_events', after => interval '1 day', if_not_exists => true);

ALTER TABLE store.trades SET (timescaledb.enable_columnstore, timescaledb.segmentby='symbol', timescaledb.orderby='ts_event, row_sequence');

CALL add_columnstore_policy('store.trades', after => interval '1 day', if_not_exists => true);

ALTER TABLE store.quotes SET (timescaledb.enable_columnstore, timescaledb.segmentby='symbol', timescaledb.orderby='ts_event, row_sequence');

CALL add_columnstore_policy('store.quotes', after => interval '1 day', if_not_exists => true);

ALTER TABLE store.depth SET (timescaledb.enable_columnstore, timescaledb.segmentby='symbol', timescaledb.orderby='ts_event, row_sequence');

CALL add_columnstore_policy('store.depth', after => interval '1 day', if_not_exists => true);

ALTER TABLE store.bars SET (timescaledb.enable_columnstore, timescaledb.segmentby='symbol', timescaledb.orderby='ts_open, row_sequence');

CALL add_columnstore_policy('store.bars', after => interval '1 day', if_not_exists => true);
