-- What minutes cost, and the invoices over them: the same tables in all engines. Amounts are in millionths of the currency.

-- What 1,000 participant minutes cost from a month on. An empty application is any that has no price of its own.
CREATE TABLE prices (
    application VARCHAR(48) NOT NULL,
    from_ms     BIGINT NOT NULL,
    currency    VARCHAR(3) NOT NULL,
    decimals    BIGINT NOT NULL,
    micros      BIGINT NOT NULL,
    issuer      VARCHAR(400) NOT NULL,
    PRIMARY KEY (application, from_ms)
){options};

-- What was issued; nothing in these two is ever changed or removed.
CREATE TABLE invoices (
    number       BIGINT NOT NULL PRIMARY KEY,
    application  VARCHAR(48) NOT NULL,
    month_ms     BIGINT NOT NULL,
    issued_ms    BIGINT NOT NULL,
    currency     VARCHAR(3) NOT NULL,
    decimals     BIGINT NOT NULL,
    micros       BIGINT NOT NULL,
    issuer       VARCHAR(400) NOT NULL,
    minutes      BIGINT NOT NULL,
    total_micros BIGINT NOT NULL
){options};
CREATE UNIQUE INDEX invoices_of_application ON invoices (application, month_ms);
CREATE INDEX invoices_by_month ON invoices (month_ms, number);
CREATE TABLE invoice_lines (
    number        BIGINT NOT NULL,
    place         BIGINT NOT NULL,
    application   VARCHAR(48) NOT NULL,
    -- In which the minutes were used: before that of the invoice, it is a correction.
    month_ms      BIGINT NOT NULL,
    minutes       BIGINT NOT NULL,
    micros        BIGINT NOT NULL,
    amount_micros BIGINT NOT NULL,
    PRIMARY KEY (number, place)
){options};
CREATE INDEX invoice_lines_of_month ON invoice_lines (application, month_ms);

-- The last number that was given. Its row is locked by who issues.
CREATE TABLE invoice_numbers (
    id   BIGINT NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
){options};
INSERT INTO invoice_numbers (id, last) VALUES (1, 0);
