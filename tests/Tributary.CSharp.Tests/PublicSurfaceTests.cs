using System.Reflection;
using NUnit.Framework;

namespace Tributary.CSharp.Tests;

[TestFixture]
public sealed class PublicSurfaceTests
{
    private static readonly Assembly Facade = typeof(TributaryClient).Assembly;

    /// <summary>A type, what it is made of, and what it promises to be.</summary>
    private static IEnumerable<Type> Parts(Type type) =>
        type.HasElementType
            ? Parts(type.GetElementType()!)
            : type.IsGenericType ? type.GetGenericArguments().SelectMany(Parts).Prepend(type) : [type];

    private static IEnumerable<Type> Signature(Type type)
    {
        const BindingFlags Everything = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance
            | BindingFlags.Static | BindingFlags.DeclaredOnly;

        var methods = type.GetMembers(Everything).OfType<MethodBase>()
            .Where(method => method.IsPublic || method.IsFamily || method.IsFamilyOrAssembly)
            .ToList();

        var fields = type.GetFields(Everything).Where(field => field.IsPublic || field.IsFamily);

        return methods.SelectMany(method => method.GetParameters().Select(parameter => parameter.ParameterType))
            .Concat(methods.OfType<MethodInfo>().Select(method => method.ReturnType))
            .Concat(fields.Select(field => field.FieldType))
            .Concat(type.GetInterfaces())
            .Concat(type.GetCustomAttributesData().Select(attribute => attribute.AttributeType).Where(t => t.IsPublic))
            .Append(type.BaseType ?? typeof(object))
            .SelectMany(Parts)
            .Where(part => !part.IsGenericParameter);
    }

    private static bool IsAtHome(Type type) =>
        type.Assembly == Facade
        || type.Namespace is { } name && (name == "System" || name.StartsWith("System.") || name.StartsWith("Microsoft.Extensions."));

    [Test]
    public void Every_exported_signature_names_only_types_of_dotnet_and_of_the_facade()
    {
        var strangers =
            from type in Facade.GetExportedTypes()
            from part in Signature(type)
            where !IsAtHome(part)
            select $"{type.Name} shows {part}";

        Assert.That(Facade.GetExportedTypes(), Has.Member(typeof(TributaryClient)));
        Assert.That(strangers.Distinct(), Is.Empty);
    }

    [Test]
    public void The_enumerations_say_what_the_engine_says()
    {
        static IEnumerable<string> Names<T>() where T : struct, Enum => Enum.GetNames<T>();
        static IEnumerable<string> Cases(Type union) =>
            union.GetProperties().Where(it => it.Name.StartsWith("Is")).Select(it => it.Name[2..]);

        Assert.Multiple(() =>
        {
            Assert.That(Names<GapCause>(), Is.EqualTo(Cases(typeof(Cause))));
            Assert.That(Names<GapStream>(), Is.EqualTo(Cases(typeof(Stream))));
            Assert.That(Names<MarketState>(), Is.EqualTo(Cases(typeof(MarketStatus))));
            Assert.That(Names<TradeSide>(), Is.EqualTo(Names<Side>()));
            Assert.That(Names<TradeSource>(), Is.EqualTo(Names<Source>()));
            Assert.That(Names<BookVerdict>(), Is.EqualTo(Names<Verdict>()));
            Assert.That(Names<BookDoubt>(), Is.EqualTo(Names<Doubt>()));
            Assert.That(Names<BookReason>(), Is.EqualTo(Names<Reason>()));
            Assert.That((int)BookSide.Bid, Is.EqualTo((int)Side.Buy));
            Assert.That((int)BookSide.Ask, Is.EqualTo((int)Side.Sell));
        });
    }
}
