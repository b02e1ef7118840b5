-- ARGV: now.
return now
