using NUnit.Framework;

namespace Tributary.CSharp.Tests;

/// <summary>Tests with the simulated exchange, and a folder for each of them.</summary>
public abstract class ExchangeFixture
{
    private Simulator _exchange = null!;

    private protected Simulator Exchange => _exchange;
    private protected string Folder { get; private set; } = null!;
    private protected string StorePath => Path.Combine(Folder, "tributary.db");

    [OneTimeSetUp]
    public async Task Start_the_exchange() => _exchange = await Simulator.StartAsync();

    [OneTimeTearDown]
    public void Stop_the_exchange() => _exchange.Dispose();

    [SetUp]
    public void Make_a_folder() => Folder = Directory.CreateTempSubdirectory("tributary-csharp-").FullName;

    [TearDown]
    public void Remove_the_folder() => Directory.Delete(Folder, recursive: true);
}
