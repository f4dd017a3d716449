-- Days of checks that are over, summed up. `told` is JSON: minutes in a row that were alike, and what each node said of itself.
CREATE TABLE check_days (
    at_ms BIGINT NOT NULL PRIMARY KEY,
    told  {long} NOT NULL
){options};
