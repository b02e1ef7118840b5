-- ARGV: now. Whoever comes first writes the version; another one is refused before this is reached.
return call('HSETNX', KEYS[1], 'version', '1')
