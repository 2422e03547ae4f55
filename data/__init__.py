"""From files to arrays: records, filters, length balancing, batches, the proving ground."""
