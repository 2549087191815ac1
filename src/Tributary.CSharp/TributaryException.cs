namespace Tributary.CSharp;

/// <summary>What kept Tributary from its work, for a caller that decides what to do next.</summary>
public enum TributaryErrorKind
{
    /// <summary>The options or the configuration have mistakes; the message names all of them.</summary>
    Configuration,

    /// <summary>Another collector or program holds the store: stop that one, or name another file.</summary>
    StoreInUse,

    /// <summary>The store cannot be opened, or did not take what was collected: the disk is full, the file is something else.</summary>
    StoreFailed,

    /// <summary>The exchange did not answer, or not with what was asked for, also when it was asked again.</summary>
    ExchangeUnreachable,

    /// <summary>The exchange knows no market by this slug.</summary>
    UnknownMarket,

    /// <summary>A reader of the stream fell further behind than <see cref="TributaryOptions.StreamCapacity"/> events.</summary>
    ReaderTooSlow,
}

/// <summary>Tributary could not do what it was asked to; the message is a sentence for a person, and says what to do.</summary>
/// <example>
/// <code>
/// catch (TributaryException error) when (error.Kind == TributaryErrorKind.StoreInUse)
/// {
///     Console.Error.WriteLine(error.Message);
/// }
/// </code>
/// </example>
public sealed class TributaryException : Exception
{
    /// <summary>An exception of a kind.</summary>
    /// <param name="kind">What kept Tributary from its work.</param>
    /// <param name="message">A sentence for a person.</param>
    /// <param name="innerException">What lies beneath, if anything does.</param>
    public TributaryException(TributaryErrorKind kind, string message, Exception? innerException = null)
        : base(message, innerException) => Kind = kind;

    /// <summary>What kept Tributary from its work.</summary>
    public TributaryErrorKind Kind { get; }
}
