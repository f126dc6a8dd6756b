-- The rows of a table, as the caller may see them.
SELECT {columns} FROM {only}{table} WHERE (
{condition}
)
