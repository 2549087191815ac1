/// What a server says of its tables.
[<RequireQualifiedAccess>]
module internal Tributary.Stores.QuestDb.Catalogue

open System
open System.Text.Json
open System.Threading
open System.Threading.Tasks

let text (value: JsonElement) =
    match value.ValueKind with
    | JsonValueKind.String -> string (value.GetString())
    | JsonValueKind.Undefined
    | JsonValueKind.Null -> ""
    | _ -> value.GetRawText()

let number (value: JsonElement) =
    match Int64.TryParse(text value) with
    | true, number -> number
    | _ -> 0L

let isTrue (value: JsonElement) = value.ValueKind = JsonValueKind.True

/// The tables of the server, by name, each without its columns and with the hours after which it drops rows; 0: never.
let tables (server: Server) (ct: CancellationToken) : Task<Map<string, struct (Schema.FoundTable * int)>> =
    task {
        use! answer = server.Ask("SELECT * FROM tables()", ct)

        return
            Map.ofList [
                for row in answer.Rows do
                    let get column = answer.Value(row, column)
                    // Older servers say `name`.
                    let called =
                        if answer.Has "table_name" then
                            text (get "table_name")
                        else
                            text (get "name")

                    let hours =
                        let amount = int (number (get "ttlValue"))

                        match (text (get "ttlUnit")).TrimEnd('S', 's').ToUpperInvariant() with
                        | "HOUR" -> amount
                        | "DAY" -> 24 * amount
                        | "WEEK" -> 7 * 24 * amount
                        | "MONTH" -> 30 * 24 * amount
                        | "YEAR" -> 365 * 24 * amount
                        | _ -> 0

                    let found: Schema.FoundTable = {
                        Id = number (get "id")
                        IsWal = isTrue (get "walEnabled")
                        HasDedup = isTrue (get "dedup")
                        PartitionBy = text (get "partitionBy")
                        Columns = []
                    }

                    called.ToLowerInvariant(), struct (found, hours)
            ]
    }

let columns (server: Server) (table: string) (ct: CancellationToken) : Task<Schema.FoundColumn list> = task {
    use! answer = server.Ask($"SELECT * FROM table_columns('{table}')", ct)

    return [
        for row in answer.Rows do
            let get column = answer.Value(row, column)

            let column: Schema.FoundColumn = {
                Name = text (get "column")
                Type = text (get "type")
                IsDesignated = isTrue (get "designated")
                IsKey = isTrue (get "upsertKey")
            }

            column
    ]
}

/// Tables whose write-ahead log is suspended, each with the reason as far as the server tells it.
let suspended (server: Server) (ct: CancellationToken) : Task<(struct (string * string)) list> = task {
    use! answer = server.Ask("SELECT * FROM wal_tables()", ct)

    return [
        for row in answer.Rows do
            let get column = answer.Value(row, column)

            if isTrue (get "suspended") then
                let words =
                    [ text (get "errorTag"); text (get "errorMessage") ] |> List.filter ((<>) "")

                struct ((text (get "name")).ToLowerInvariant(), String.concat ": " words)
    ]
}
