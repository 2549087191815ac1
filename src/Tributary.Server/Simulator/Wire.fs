namespace Tributary.Server.Simulator

open System
open System.IO
open System.IO.Compression
open System.Text.Json
open System.Threading.Tasks
open Microsoft.AspNetCore.Http

/// Between ASP.NET and the exchange: what came in, and how bytes go out.
module internal Wire =
    let pathOf (http: HttpContext) =
        match http.Request.Path.Value with
        | null -> []
        | path -> List.ofArray (path.Split('/', StringSplitOptions.RemoveEmptyEntries))

    let queryOf (http: HttpContext) =
        http.Request.Query
        |> Seq.map (fun pair -> pair.Key, [ for value in pair.Value -> string value ])
        |> Map.ofSeq
        |> Query

    let bodyOf (http: HttpContext) = task {
        use buffer = new MemoryStream()
        do! http.Request.Body.CopyToAsync(buffer, http.RequestAborted)
        return ReadOnlyMemory(buffer.ToArray())
    }

    /// Smaller bodies are not worth compressing.
    let private worthCompressing = 1024

    /// Sends a body whole, compressed when the client likes it and it is worth it.
    let send (http: HttpContext) status contentType (body: ReadOnlyMemory<byte>) : Task = task {
        let accepted = string http.Request.Headers.AcceptEncoding
        http.Response.StatusCode <- status
        http.Response.ContentType <- contentType

        let compressed (name: string) (over: Stream -> Stream) = task {
            http.Response.Headers.ContentEncoding <- name
            use stream = over http.Response.Body
            do! stream.WriteAsync body
        }

        if body.Length >= worthCompressing && accepted.Contains "br" then
            do! compressed "br" (fun into -> new BrotliStream(into, CompressionLevel.Fastest, true))
        elif body.Length >= worthCompressing && accepted.Contains "gzip" then
            do! compressed "gzip" (fun into -> new GZipStream(into, CompressionLevel.Fastest, true))
        else
            http.Response.ContentLength <- int64 body.Length
            do! http.Response.Body.WriteAsync body
    }

    /// Announces the whole body, sends half of it and breaks the connection.
    let sendBroken (http: HttpContext) status contentType (body: ReadOnlyMemory<byte>) : Task = task {
        http.Response.StatusCode <- status
        http.Response.ContentType <- contentType
        http.Response.ContentLength <- int64 body.Length
        do! http.Response.Body.WriteAsync(body.Slice(0, body.Length / 2))
        do! http.Response.Body.FlushAsync()
        http.Abort()
    }

    let sendJson (http: HttpContext) status (write: Utf8JsonWriter -> unit) : Task = task {
        use sheet = Sheet.Take()
        write sheet.Json
        do! send http status "application/json" sheet.Written
    }

    /// JSON Lines: one row a line, sent a thousand at a time.
    let sendLines (http: HttpContext) (rows: 'a seq) (write: Utf8JsonWriter -> 'a -> unit) : Task = task {
        http.Response.ContentType <- "application/jsonl"

        for some in Seq.chunkBySize 1000 rows do
            use sheet = Sheet.Take()

            for row in some do
                write sheet.Json row
                sheet.EndLine()

            do! http.Response.Body.WriteAsync sheet.Written
    }
