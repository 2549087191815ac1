// The library as it was built here. "Unable to find the file"? It is not built yet: this file is named after what to type.
// NOTE: SQLite's own library is found below a folder that is named by #I, and not below that of a longer #r.
#I "../src/Tributary/bin/Release/net10.0"
#r "Tributary.Core.dll"
#r "Tributary.dll"
#r "Microsoft.Extensions.Logging.Abstractions.dll"
