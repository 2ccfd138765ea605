-- marketflow: no transaction
-- As in 0005, after the type of shard has changed.

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
